//! Pressure stall information of a cgroup (Linux 4.20), in the names of runc.

use anyhow::Result;
use serde::Serialize;

use super::{Cgroup, files};
use crate::sys::{Call, Errno};

/// Pressure stall information: the share of time in which some or all processes waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    some: Stalls,
    full: Stalls,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Stalls {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    /// In microseconds.
    total: u64,
}

impl Cgroup {
    /// The pressure of `resource` ("cpu", "memory", "io"); None in a kernel without it, or where it
    /// is turned off.
    ///
    /// # Errors
    ///
    /// The file can not be read.
    pub fn pressure(&self, resource: &str) -> Result<Option<Pressure>> {
        let file = format!("{resource}.pressure");
        match files::read(self.fd(), &file) {
            Ok(text) => Ok(Some(pressure(&text))),
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Ok(Err(errno).call(|| format!("read({:?})", self.place(&file)))?),
        }
    }
}

/// The lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and "full …".
fn pressure(text: &str) -> Pressure {
    let stalls = |kind: &str| {
        let mut stalls = Stalls::default();
        let words = files::value_of(text, kind).unwrap_or_default().split(' ');
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let share = value.parse().unwrap_or(0.0);
            match key {
                "avg10" => stalls.avg10 = share,
                "avg60" => stalls.avg60 = share,
                "avg300" => stalls.avg300 = share,
                "total" => stalls.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        stalls
    };
    Pressure {
        some: stalls("some"),
        full: stalls("full"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_two_lines_of_four_figures() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=12345\n\
                    full avg10=0.00 avg60=0.00 avg300=0.10 total=99\n";
        let json = serde_json::to_string(&pressure(text)).unwrap();
        assert_eq!(
            json,
            r#"{"some":{"avg10":1.5,"avg60":0.2,"avg300":0.0,"total":12345},"full":{"avg10":0.0,"avg60":0.0,"avg300":0.1,"total":99}}"#
        );
    }
}
