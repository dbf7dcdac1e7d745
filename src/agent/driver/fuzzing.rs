//! The door for fuzz targets: the agent's files as they are read back, whatever is in them.
//!
//! Decides nothing: it calls what an agent calls when it begins.
#![allow(clippy::unwrap_used, reason = "a failure is what is looked for")]

use std::fs;
use std::path::PathBuf;

use super::start::tests::host;
use super::{Host, disk, events, place, wanted};

/// An agent's directory, with one instance; removed on drop.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    host: Host,
}

impl Drop for Place {
    fn drop(&mut self) {
        // It is among temporary files in any case.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

impl Place {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// There is no directory for temporary files.
    #[must_use]
    pub fn new() -> Place {
        let (folder, host) = host("fuzzing");
        fs::create_dir_all(host.directory("web.1.0000000.0")).unwrap();
        Place { folder, host }
    }

    /// Reads what is wanted: these bytes, and the same with the checksum that belongs to them.
    ///
    /// # Panics
    ///
    /// What is read and written again is not the same.
    pub fn wanted(&self, text: &[u8]) {
        let state = &self.host.options.state;
        for content in [text.to_vec(), disk::with_checksum(text)] {
            fs::write(state.join(disk::WANTED), content).unwrap();
            let Ok(Some(read)) = disk::read_wanted(state) else {
                continue;
            };
            disk::write_wanted(state, &read).unwrap();
            assert_eq!(disk::read_wanted(state).unwrap().as_ref(), Some(&read));
            let count = read
                .jobs
                .iter()
                .map(|one| u64::from(one.count))
                .sum::<u64>();
            // Control takes no more, and each one has its place in memory.
            if count <= 10_000
                && let Ok((recipes, want)) = wanted::plan(&read)
            {
                assert_eq!(recipes.len() as u64, count);
                assert_eq!(want.slots.len() as u64, count);
            }
        }
    }

    /// Reads an instance's file and what its last keeper has written.
    ///
    /// # Panics
    ///
    /// It is not found.
    pub fn instance(&self, text: &[u8]) {
        let directory = self.host.directory("web.1.0000000.0");
        for name in [place::FILE, crate::keeper::status::FILE] {
            fs::write(directory.join(name), text).unwrap();
        }
        let found = self.host.find().unwrap();
        assert_eq!(found.len(), 1);
        let mut ports = super::ports::Ports::default();
        ports.claim(&found[0].name, &found[0].ports);
        place::task(&directory);
        place::runs(&directory);
    }

    /// Reads the history and the number of the next event.
    ///
    /// # Panics
    ///
    /// An event that follows has the number of one before.
    pub fn events(&self, text: &[u8]) {
        let state = &self.host.options.state;
        fs::write(state.join("events"), text).unwrap();
        let next = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        fs::write(state.join("events.next"), next).unwrap();
        let (mut log, _told) = events::Log::open(state, "host").unwrap();
        log.check_next();
    }

    /// Reads the last verdicts of health checks.
    pub fn verdicts(&self, text: &[u8]) {
        let path = self.folder.join("health.json");
        fs::write(&path, text).unwrap();
        crate::agent::health::read_verdicts(&path);
    }
}
