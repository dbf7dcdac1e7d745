//! Rules of what is for the keeper: those of keeper.json, and the same ranges.

use super::Checker;
use crate::job::{Curve, Job, Size, Thousandths, Time};

const SHORTEST: Time = Time::from_millis(1);
const LONGEST: Time = Time::from_secs(365 * 24 * 3600);

pub(super) fn check(job: &Job, checker: &mut Checker) {
    let restart = &job.restart;
    checker.inside("restart", |c| {
        c.inside("successCodes", |c| {
            let some = !restart.success_codes.is_empty() || !c.knows_here(&[]);
            c.require(some, || "must have at least one code, as [0]".to_owned());
        });
        c.range("goodRun", Some(restart.good_run), SHORTEST, LONGEST);
        c.inside("crash", |c| curve(&restart.crash, c));
        c.inside("unhealthy", |c| curve(&restart.unhealthy, c));
        c.inside("image", |c| curve(&restart.image, c));
    });
    checker.inside("log", |c| {
        let (least, most) = (Size(128 << 10), Size(1 << 40));
        c.range("maxSize", Some(job.log.max_size), least, most);
        c.range("maxFiles", Some(job.log.max_files), 1, 1000);
    });
}

fn curve(curve: &Curve, checker: &mut Checker) {
    checker.range("base", Some(curve.base), SHORTEST, LONGEST);
    checker.range("cap", Some(curve.cap), SHORTEST, LONGEST);
    let number = |thousandths: Thousandths| Some(thousandths.number());
    checker.range("factor", number(curve.factor), 1.0, 1000.0);
    checker.range("jitter", number(curve.jitter), 0.0, 1.0);
    let (base, cap) = (curve.base, curve.cap);
    let fits = base <= cap || !checker.knows_here(&["cap"]);
    checker.inside("base", |c| {
        c.require(fits, || format!("must be at most cap, {cap}, is {base}"));
    });
}
