//! What CRIU is asked for: `criu_req` and `criu_opts` of its rpc.proto, with the numbers of their fields.

use std::os::fd::RawFd;

use super::wire::Message;

/// What CRIU is to do: `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Write images of a process tree.
    Dump = 1,
    /// Make one of images.
    Restore = 2,
    /// Write images of its memory only; it goes on.
    PreDump = 4,
    /// Only an answer to what CRIU tells.
    Notify = 6,
    /// Say whether the kernel can do something.
    FeatureCheck = 9,
    /// Say how old it is.
    Version = 10,
}

/// Options that are on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// The processes go on after the dump.
    LeaveRunning = 3,
    /// Unix sockets may have their other end outside.
    ExternalUnixSockets = 4,
    /// TCP connections that are established.
    TcpEstablished = 5,
    /// A device is opened by any path when its own is missing.
    EvasiveDevices = 6,
    /// The session leader may be outside, and the terminal with it.
    ShellJob = 7,
    /// Locks on files.
    FileLocks = 8,
    /// Tell the caller of each step.
    Notify = 12,
    /// Note which pages change from now on.
    TrackMemory = 15,
    /// Give back in the parent's images what these replace.
    AutoDedup = 16,
    /// Files that were unlinked get a name for the time of the checkpoint.
    LinkRemap = 18,
    /// The restored process is the caller's child.
    RestoreSibling = 26,
    /// Connections that are not accepted yet are left out.
    TcpSkipInFlight = 46,
    /// Pages come later, when they are asked for.
    LazyPages = 48,
    /// A terminal whose master is outside; the caller gets the new one.
    OrphanTerminal = 50,
    /// TCP connections that were established are restored as closed sockets.
    TcpClose = 52,
}

/// Options that are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The log's name in the working directory.
    LogFile = 10,
    /// The container's root on the host.
    Root = 13,
    /// Where the images before these are, from these on.
    Parent = 14,
    /// Something that is not the container's own, as `TYPE[ID]:NAME`.
    External = 37,
    /// The cgroup that is frozen meanwhile, as a path on the host.
    FreezeCgroup = 44,
    /// A file of options, which go before those given here.
    ConfigFile = 51,
    /// `TYPE:LABEL` instead of the label before.
    LsmProfile = 53,
    /// The context of SELinux for mounts that had one.
    LsmMountContext = 63,
}

/// Options that are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The caller's descriptor of the images' directory.
    Images = 1,
    /// The process whose tree is dumped.
    Pid = 2,
    /// How much is logged, up to 4.
    LogLevel = 9,
    /// The caller's descriptor of the working directory.
    Work = 17,
    /// A [`CgroupsMode`].
    CgroupsMode = 34,
    /// `CLONE_NEW*` of namespaces whose content is left out.
    EmptyNamespaces = 38,
    /// A [`NetworkLock`].
    NetworkLock = 64,
}

/// How packets of established connections are dropped from a dump until its restore:
/// `criu_network_lock_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// By rules of iptables, CRIU's default.
    Iptables = 1,
    /// By a table of nftables.
    Nftables = 2,
    /// Not at all; CRIU 3.19.
    Skip = 3,
}

/// What becomes of cgroups: `criu_cg_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Processes stay in the cgroup in which CRIU is.
    Ignore = 0,
    /// Limits of cgroups that CRIU makes are restored.
    Soft = 3,
    /// Those of all.
    Full = 4,
    /// Those of all, and none may be there before.
    Strict = 5,
}

/// All options of one request; an option that is not set has CRIU's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Message);

impl Options {
    /// Sets a flag, if it is wanted.
    pub fn flag(&mut self, flag: Flag, wanted: bool) {
        if wanted {
            self.0.number(flag as u32, 1);
        }
    }

    /// Sets a text. [`Text::External`] can be set more than once.
    pub fn text(&mut self, option: Text, text: &str) {
        self.0.text(option as u32, text);
    }

    /// Sets a number.
    pub fn number(&mut self, option: Number, number: u32) {
        self.0.number(option as u32, u64::from(number));
    }

    /// Sets a descriptor of this process, which CRIU opens anew by its number.
    pub fn descriptor(&mut self, option: Number, fd: RawFd) {
        self.number(option, fd.unsigned_abs());
    }

    /// A mount that comes from outside. For a dump: where it is in the container, and the name that it
    /// gets in the images. For a restore: that name, and where it is on the host.
    pub fn external_mount(&mut self, key: &str, value: &str) {
        self.pair(23, key, value);
    }

    /// The cgroup that takes the place of the one in the images, from the hierarchy's root on.
    pub fn cgroup_root(&mut self, path: &str) {
        let mut root = Message::default();
        root.text(2, path);
        self.0.message(25, &root);
    }

    /// A descriptor that the started CRIU has, for what the images know by this name.
    pub fn inherit(&mut self, name: &str, fd: RawFd) {
        let mut inherited = Message::default();
        inherited.text(1, name);
        inherited.number(2, u64::from(fd.unsigned_abs()));
        self.0.message(27, &inherited);
    }

    /// A namespace that is joined: its name in /proc/PID/ns, and where it is.
    pub fn join(&mut self, namespace: &str, path: &str) {
        self.pair(39, namespace, path);
    }

    /// Where pages go to, or come from.
    pub fn page_server(&mut self, address: &str, port: u16) {
        let mut server = Message::default();
        server.text(1, address);
        server.number(2, u64::from(port));
        self.0.message(11, &server);
    }

    fn pair(&mut self, field: u32, first: &str, second: &str) {
        let mut pair = Message::default();
        pair.text(1, first);
        pair.text(2, second);
        self.0.message(field, &pair);
    }
}

/// What a kernel may be asked for by [`Kind::FeatureCheck`]: fields of `criu_features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Which pages were written to.
    TrackMemory = 1,
    /// userfaultfd(2), as [`Flag::LazyPages`] needs it.
    LazyPages = 2,
}

impl Feature {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Feature::TrackMemory => "the tracking of changed pages (CONFIG_MEM_SOFT_DIRTY)",
            Feature::LazyPages => "lazy pages (userfaultfd with non-cooperative mode)",
        }
    }
}

/// A request with these options.
pub(super) fn request(kind: Kind, options: &Options) -> Message {
    let mut request = of_kind(kind);
    request.message(2, &options.0);
    request
}

/// The question whether the kernel can do something.
pub(super) fn question(feature: Feature) -> Message {
    let mut features = Message::default();
    features.number(feature as u32, 1);
    let mut request = of_kind(Kind::FeatureCheck);
    request.message(5, &features);
    request
}

/// A request without options.
pub(super) fn of_kind(kind: Kind) -> Message {
    let mut request = Message::default();
    request.number(1, kind as u64);
    request
}

/// The answer to what CRIU has told: it may go on, or it may not.
pub(super) fn heard(success: bool) -> Message {
    let mut answer = of_kind(Kind::Notify);
    answer.number(3, u64::from(success));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_of_its_fields() {
        let mut options = Options::default();
        options.descriptor(Number::Images, 5);
        options.flag(Flag::LeaveRunning, true);
        options.flag(Flag::ShellJob, false);
        options.external_mount("/data", "/srv");
        options.inherit("pipe:[7]", 1);
        let expected = b"\x08\x01\x12\x23\x08\x05\x18\x01\
            \xba\x01\x0d\x0a\x05/data\x12\x04/srv\
            \xda\x01\x0c\x0a\x08pipe:[7]\x10\x01";
        assert_eq!(request(Kind::Dump, &options).as_bytes(), expected);
        assert_eq!(heard(true).as_bytes(), b"\x08\x06\x18\x01");
        assert_eq!(heard(false).as_bytes(), b"\x08\x06\x18\x00");
        let asked = question(Feature::LazyPages);
        assert_eq!(asked.as_bytes(), b"\x08\x09\x2a\x02\x10\x01");
    }
}
