//! The identity of a job: its name, its version and a digest of all that it says.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Job;

/// The identity of a job, written `name:version:digest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId {
    /// The job's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of its JSON with sorted keys and no defaults, 64 hexadecimal digits.
    pub digest: String,
}

impl Job {
    /// Its identity.
    ///
    /// # Panics
    ///
    /// Never: every field of a job can be written as JSON.
    #[must_use]
    pub fn id(&self) -> JobId {
        // By way of a Value, whose maps are sorted, so that the order of fields in the code says nothing.
        let value = serde_json::to_value(self).unwrap_or_default();
        let digest = Sha256::digest(value.to_string());
        JobId {
            name: self.name.clone(),
            version: self.version.clone(),
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl JobId {
    /// Enough of it for people, and for names of files: `name:version:` and 7 digits.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}:{}:{:.7}", self.name, self.version, self.digest)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.version, self.digest)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for JobId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<JobId> {
        text.parse()
    }
}

impl FromStr for JobId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<JobId> {
        let mut parts = text.split(':');
        let (Some(name), Some(version), Some(digest), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("{text:?} is no job's id: one is name:version:digest");
        };
        let is_digest = digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit());
        if name.is_empty() || version.is_empty() || !is_digest {
            bail!("{text:?} is no job's id: one is name:version: and 64 hexadecimal digits");
        }
        Ok(JobId {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest.to_ascii_lowercase(),
        })
    }
}
