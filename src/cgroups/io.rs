//! The share and the rate of block device access: `linux.resources.blockIO`.
//!
//! A weight goes to the BFQ scheduler where it is present and to io.weight (iocost) elsewhere.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::Controller;
use super::plan::Draft;

/// Row of `CONTROLLERS`.
pub(super) struct Io;

impl Controller for Io {
    fn name(&self) -> &'static str {
        "io"
    }

    fn plan(&self, resources: &LinuxResources, draft: &mut Draft<'_>) {
        let Some(io) = resources.block_io() else {
            return;
        };
        // 0 means "not set", which Docker sends.
        if io.leaf_weight().is_some_and(|weight| weight != 0) {
            draft.refuse_v1("blockIO.leafWeight");
        }
        if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
            self::weight("blockIO.weight", "", weight, draft);
        }
        weight_devices(io, draft);
        throttles(io, draft);
    }
}

/// Writes a weight, for all devices or with "8:0 " for one.
fn weight(field: &str, device: &str, weight: u16, draft: &mut Draft<'_>) {
    match io_weight(weight) {
        Some(converted) => draft.limit_either(
            field,
            ("io.bfq.weight", format!("{device}{weight}")),
            ("io.weight", format!("{device}{converted}")),
        ),
        None => draft.refuse(field, format!("must be 10 to 1000, is {weight}")),
    }
}

/// Moves 10..1000 to 1..10000 as runc and crun do: `ConvertBlkIOToIOWeightValue` of
/// opencontainers/cgroups.
fn io_weight(weight: u16) -> Option<u32> {
    let above = u32::from(weight.checked_sub(10)?);
    (weight <= 1000).then_some(1 + above * 9999 / 990)
}

fn weight_devices(io: &LinuxBlockIo, draft: &mut Draft<'_>) {
    for (i, device) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{i}]");
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            draft.refuse_v1(&format!("{field}.leafWeight"));
        }
        let name = name(&field, device.major(), device.minor(), draft);
        match (device.weight(), name) {
            (Some(weight), Some(name)) if weight != 0 => {
                self::weight(
                    &format!("{field}.weight"),
                    &format!("{name} "),
                    weight,
                    draft,
                );
            }
            (Some(_) | None, _) => {}
        }
    }
}

/// A line of io.max.
struct Line {
    /// JSON path of its first rate.
    field: String,
    device: String,
    rates: String,
    /// False when all its rates are "max".
    limited: bool,
}

/// All rates of one device go into one line of io.max, so that each device costs one write.
fn throttles(io: &LinuxBlockIo, draft: &mut Draft<'_>) {
    let lists = [
        (
            "throttleReadBpsDevice",
            "rbps",
            io.throttle_read_bps_device(),
        ),
        (
            "throttleWriteBpsDevice",
            "wbps",
            io.throttle_write_bps_device(),
        ),
        (
            "throttleReadIOPSDevice",
            "riops",
            io.throttle_read_iops_device(),
        ),
        (
            "throttleWriteIOPSDevice",
            "wiops",
            io.throttle_write_iops_device(),
        ),
    ];
    let mut lines: Vec<Line> = Vec::new();
    for (list, key, devices) in lists {
        for (i, throttle) in devices.iter().flatten().enumerate() {
            let field = format!("blockIO.{list}[{i}]");
            if let Some(device) = name(&field, throttle.major(), throttle.minor(), draft) {
                add_rate(&mut lines, field, device, key, throttle);
            }
        }
    }
    for Line {
        field,
        device,
        rates,
        limited,
    } in lines
    {
        let value = device + &rates;
        match limited {
            true => draft.limit(&field, "io.max", value),
            false => draft.lift(&field, "io.max", value),
        }
    }
}

fn add_rate(
    lines: &mut Vec<Line>,
    field: String,
    device: String,
    key: &str,
    throttle: &LinuxThrottleDevice,
) {
    let (rates, limited) = (format!(" {key}={}", rate(throttle)), throttle.rate() != 0);
    match lines.iter_mut().find(|line| line.device == device) {
        Some(line) => {
            line.rates.push_str(&rates);
            line.limited |= limited;
        }
        None => lines.push(Line {
            field,
            device,
            rates,
            limited,
        }),
    }
}

/// In cgroup v1 a rate of 0 meant no limit; io.max refuses it.
fn rate(throttle: &LinuxThrottleDevice) -> String {
    match throttle.rate() {
        0 => "max".to_owned(),
        rate => rate.to_string(),
    }
}

/// A device as the kernel names it in these files: "8:16".
fn name(field: &str, major: i64, minor: i64, draft: &mut Draft<'_>) -> Option<String> {
    let number = |key: &str, number: i64, draft: &mut Draft<'_>| {
        let number = u32::try_from(number);
        if number.is_err() {
            draft.refuse(&format!("{field}.{key}"), "must be the number of a device");
        }
        number.ok()
    };
    let (major, minor) = (number("major", major, draft), number("minor", minor, draft));
    Some(format!("{}:{}", major?, minor?))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{lines, problems};
    use super::*;

    #[test]
    fn weights_go_to_bfq_or_converted_to_io_weight() {
        let json = r#"{"blockIO": {"weight": 500, "weightDevice":
            [{"major": 8, "minor": 16, "weight": 1000}]}}"#;
        assert_eq!(
            lines(json),
            [
                "write    io.bfq.weight 500, else io.weight 4950",
                "write    io.bfq.weight 8:16 1000, else io.weight 8:16 10000",
            ]
        );
        assert_eq!(
            (io_weight(9), io_weight(10), io_weight(1001)),
            (None, Some(1), None)
        );
    }

    #[test]
    fn the_rates_of_a_device_share_a_line() {
        let json = r#"{"blockIO": {
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 700}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 300}]}}"#;
        assert_eq!(
            lines(json),
            [
                "write    io.max 8:0 rbps=600 riops=max wiops=300",
                "write    io.max 8:16 wbps=700",
            ]
        );
    }

    #[test]
    fn weights_of_zero_set_nothing() {
        let docker = r#"{"blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": []}}"#;
        assert!(lines(docker).is_empty());
    }

    #[test]
    fn wrong_weights_and_devices_are_problems() {
        let wrong = r#"{"blockIO": {"weight": 5, "leafWeight": 10,
            "weightDevice": [{"major": -8, "minor": 0, "weight": 500, "leafWeight": 20}],
            "throttleReadBpsDevice": [{"major": 8, "minor": -1, "rate": 600}]}}"#;
        assert_eq!(
            problems(wrong),
            [
                "linux.resources.blockIO.leafWeight: exists only in cgroup v1",
                "linux.resources.blockIO.weight: must be 10 to 1000, is 5",
                "linux.resources.blockIO.weightDevice[0].leafWeight: exists only in cgroup v1",
                "linux.resources.blockIO.weightDevice[0].major: must be the number of a device",
                "linux.resources.blockIO.throttleReadBpsDevice[0].minor: must be the number of a device",
            ]
        );
    }
}
