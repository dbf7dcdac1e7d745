//! What must hold, and a mistake for each that it is seen to fail by.

/// A mistake that is made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    None,
    /// Keepers hear nothing of the time.
    KeepersSleep,
    /// A directory has no lock, and a keeper finds no container.
    NoLock,
    /// People are told that it is done before it is.
    ToldTooEarly,
    /// Control does not see that something was deleted.
    DeletionsUnseen,
    /// An agent does not look which ports there are.
    PortsForgotten,
    /// Verdicts of checks are not read again.
    VerdictsForgotten,
    /// A keeper takes no notice when one of several programs ends.
    EachForItself,
    /// Who is unhealthy is restarted at once, whoever else is.
    NoBrake,
    /// An agent does not look which addresses there are.
    AddressesForgotten,
    /// What an instance had is not looked at when it is made again.
    RecordsUnread,
    /// An instance whose program does not run is not counted.
    DownUncounted,
    /// A daemon that begins does not mind that others may just have been restarted.
    BrakeForgotten,
    /// Nobody hears that an instance could not be made.
    FailureUntold,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// A wanted instance comes back within its back-off.
    ComesBack,
    /// No slot has two live containers, or two keepers.
    OneOfASlot,
    /// What was acknowledged is carried out.
    IntentIsKept,
    /// What is not wanted goes.
    NothingUnwanted,
    /// No port is two instances'.
    PortsAreSingle,
    /// A daemon that dies makes nobody unready.
    ReadinessStays,
    /// Of a group that runs, each program does, or has ended well.
    LiveTogether,
    /// Of several instances of a job, checks restart no two at once.
    FewAtOnce,
    /// No address is two instances'.
    AddressesAreSingle,
    /// An instance keeps its ports and its address for as long as it is there.
    ReachedAsBefore,
    /// What can not be done is told, and tried again.
    NothingInSilence,
}
