//! Block devices: weights and the four throttles.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{HOST, limited};
use crate::support::{needs_controllers, tests};

pub fn all() -> Vec<Trial> {
    needs_controllers(
        &["io"],
        tests![
            a_weight_is_set,
            a_weight_of_one_device_is_set,
            the_four_throttles_of_a_device_are_set,
            a_rate_of_zero_lifts_a_throttle,
            a_device_that_does_not_exist_is_refused,
        ],
    )
}

/// A disk: the virtual host's spare one, elsewhere any. Its numbers, major and minor.
fn disk() -> (i64, i64) {
    let place = match std::env::var("VHOST_DISK") {
        Ok(disk) => PathBuf::from(disk.replace("/dev/", "/sys/block/")),
        Err(_elsewhere) => {
            let any = fs::read_dir("/sys/block").unwrap().next();
            any.expect("this host has no disk").unwrap().path()
        }
    };
    let numbers = fs::read_to_string(place.join("dev")).unwrap();
    let (major, minor) = numbers.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

fn file(resources: Value, file: &str) -> String {
    let script = format!("cat {HOST}/{file}");
    limited(resources, &script).run().success()
}

/// BFQ's file where the kernel has it, else the file of the kernel's own model of cost. Both list
/// the weight of all devices as "default N".
fn weight_file() -> (&'static str, bool) {
    let some_cgroup = format!("{HOST}/init.scope/io.bfq.weight");
    match fs::exists(some_cgroup).unwrap() {
        true => ("io.bfq.weight", true),
        false => ("io.weight", false),
    }
}

fn a_weight_is_set() {
    let (name, bfq) = weight_file();
    for (weight, converted) in [(10, 1), (500, 4950), (1000, 10_000)] {
        let expected = if bfq { weight } else { converted };
        assert_eq!(
            file(json!({"blockIO": {"weight": weight}}), name),
            format!("default {expected}\n")
        );
    }
    let none = file(json!({"blockIO": {"weight": 0}}), name);
    assert_eq!(none, "default 100\n");
}

/// The kernel takes the weight of a single device only where something shares out by it.
struct CostModel(String);

impl CostModel {
    fn enable(major: i64, minor: i64) -> CostModel {
        let device = format!("{major}:{minor}");
        fs::write(format!("{HOST}/io.cost.qos"), format!("{device} enable=1")).unwrap();
        CostModel(device)
    }
}

impl Drop for CostModel {
    fn drop(&mut self) {
        fs::write(
            format!("{HOST}/io.cost.qos"),
            format!("{} enable=0", self.0),
        )
        .unwrap();
    }
}

fn a_weight_of_one_device_is_set() {
    let (major, minor) = disk();
    let (name, bfq) = weight_file();
    let _model = (!bfq).then(|| CostModel::enable(major, minor));
    let device = json!({"major": major, "minor": minor, "weight": 20});
    let weights = json!({"blockIO": {"weight": 100, "weightDevice": [device]}});
    let (all, one) = if bfq { (100, 20) } else { (910, 102) };
    assert_eq!(
        file(weights, name),
        format!("default {all}\n{major}:{minor} {one}\n")
    );
}

fn rate(rate: u64) -> Value {
    let (major, minor) = disk();
    json!([{"major": major, "minor": minor, "rate": rate}])
}

fn the_four_throttles_of_a_device_are_set() {
    let (major, minor) = disk();
    let throttles = [
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ];
    let mut io = json!({});
    for (i, (field, _)) in throttles.iter().enumerate() {
        io[field] = rate(1_000_000 + i as u64);
    }
    assert_eq!(
        file(json!({"blockIO": io}), "io.max"),
        format!("{major}:{minor} rbps=1000000 wbps=1000001 riops=1000002 wiops=1000003\n")
    );
    // And each of them alone.
    for (field, key) in throttles {
        let seen = file(json!({"blockIO": {field: rate(123_456)}}), "io.max");
        assert!(seen.contains(&format!("{key}=123456")), "{field}: {seen}");
        assert_eq!(seen.matches("=max").count(), 3, "{field}: {seen}");
    }
}

fn a_rate_of_zero_lifts_a_throttle() {
    let io = json!({"throttleReadBpsDevice": rate(0), "throttleWriteBpsDevice": rate(4096)});
    let seen = file(json!({"blockIO": io}), "io.max");
    assert!(seen.contains(" rbps=max wbps=4096 "), "{seen}");
}

fn a_device_that_does_not_exist_is_refused() {
    let nowhere = json!([{"major": 4000, "minor": 1, "rate": 4096}]);
    let limits = json!({"blockIO": {"throttleReadBpsDevice": nowhere}});
    let bundle = limited(limits, "true");
    let error = bundle.create().failure();
    let field = "linux.resources.blockIO.throttleReadBpsDevice[0]: ";
    assert!(error.contains(field), "{error}");
    assert!(!super::cgroup(&bundle).exists());
}
