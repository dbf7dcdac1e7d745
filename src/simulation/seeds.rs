//! Many seeds, without a mistake and with each.

use super::{Broken, Invariant, Weakness, World};

/// How many seeds there are where none is asked for.
const SEEDS: u64 = 150;

/// Three times trouble and peace.
fn run(seed: u64, weakness: Weakness) -> Result<(), Broken> {
    let mut world = World::new(seed, weakness);
    for _ in 0..3 {
        for _ in 0..40 {
            world.happen();
        }
        world.peace();
    }
    world.broken.map_or(Ok(()), Err)
}

#[test]
fn whatever_dies_what_was_acknowledged_runs_once_and_nothing_else() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap())
    };
    let first = number("SEED");
    let seeds = number("SEEDS").unwrap_or(first.map_or(SEEDS, |_| 1));
    let first = first.unwrap_or(0);
    for seed in first..first + seeds {
        let ran = std::panic::catch_unwind(|| run(seed, Weakness::None));
        if !matches!(ran, Ok(Ok(()))) {
            let again = "cargo test --features supervisor --lib simulation::seeds::whatever";
            panic!("{ran:?}: run it again: SEED={seed} {again}");
        }
    }
}

#[test]
fn each_invariant_fails_where_its_mistake_is_made() {
    for (weakness, expected) in [
        (Weakness::KeepersSleep, Invariant::ComesBack),
        (Weakness::NoLock, Invariant::OneOfASlot),
        (Weakness::ToldTooEarly, Invariant::IntentIsKept),
        (Weakness::DeletionsUnseen, Invariant::NothingUnwanted),
        (Weakness::PortsForgotten, Invariant::PortsAreSingle),
        (Weakness::VerdictsForgotten, Invariant::ReadinessStays),
        (Weakness::EachForItself, Invariant::LiveTogether),
        (Weakness::NoBrake, Invariant::FewAtOnce),
        (Weakness::DownUncounted, Invariant::FewAtOnce),
        (Weakness::BrakeForgotten, Invariant::FewAtOnce),
        (Weakness::AddressesForgotten, Invariant::AddressesAreSingle),
        (Weakness::RecordsUnread, Invariant::ReachedAsBefore),
        (Weakness::FailureUntold, Invariant::NothingInSilence),
    ] {
        let fails = |seed| run(seed, weakness).is_err_and(|(invariant, _)| invariant == expected);
        assert!((0..300).any(fails), "{weakness:?} is not seen");
    }
}
