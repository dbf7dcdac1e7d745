//! A job file to the files of an instance: no panic, and a job that is taken is the same by way of its JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parhelion::job::{Format, helios, parse};

fuzz_target!(|text: &str| {
    let options = helios::Options {
        bundle: Some("/srv/web".into()),
        id: Some(("web".to_owned(), "1".to_owned())),
    };
    let imported = helios::import(text, &options).map(|(job, _)| job);
    let jobs = [parse(text, Format::Json).ok(), parse(text, Format::Toml).ok(), imported.ok()];
    for job in jobs.into_iter().flatten() {
        let json = serde_json::to_string(&job).unwrap();
        let again = parse(&json, Format::Json).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(again, job);
        assert_eq!(again.id(), job.id());
    }
});
