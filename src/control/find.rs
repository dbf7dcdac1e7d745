//! Which job is meant by `name[:version[:digest-prefix]]`: pure.

use crate::job::JobId;

use super::problem::Refusal;

/// What a person has written for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    name: String,
    version: Option<String>,
    digest: String,
}

impl Meant {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// It can be no job's.
    pub fn parse(text: &str) -> Result<Meant, Refusal> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let version = parts.next().map(str::to_owned);
        let digest = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_digest = digest.len() <= 64 && digest.bytes().all(|c| c.is_ascii_hexdigit());
        let no_version = version.as_deref() == Some("");
        if name.is_empty() || no_version || !is_digest || parts.next().is_some() {
            return Err(Refusal::bad(
                format!("{text:?} names no job"),
                "write NAME, NAME:VERSION or NAME:VERSION:DIGEST, of which some first digits do",
            ));
        }
        Ok(Meant {
            name,
            version,
            digest,
        })
    }

    /// Whether it is this one.
    pub fn is(&self, id: &JobId) -> bool {
        let version = self.version.as_ref();
        self.name == id.name
            && version.is_none_or(|version| *version == id.version)
            && id.digest.starts_with(&self.digest)
    }

    /// What the keys of all jobs of this name begin with.
    pub fn prefix(&self) -> String {
        format!("{}:", self.name)
    }

    /// The one of these that is meant.
    ///
    /// # Errors
    ///
    /// None of them is, or more than one.
    pub fn one_of(&self, ids: Vec<JobId>, place: &str) -> Result<JobId, Refusal> {
        let mut found: Vec<JobId> = ids.into_iter().filter(|id| self.is(id)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(id), true) => Ok(id),
            (Some(id), false) => {
                found.push(id);
                let candidates: Vec<String> = found.iter().map(JobId::short).collect();
                let hint = format!("write more of it: {}", candidates.join(" or "));
                let error = format!("\"{self}\" may be {} jobs {place}", found.len());
                Err(Refusal::conflict(error, hint).with(candidates))
            }
            (None, _) => Err(Refusal::missing(
                format!("there is no job \"{self}\" {place}"),
                "parctl jobs lists those that there are; parctl create FILE makes one",
            )),
        }
    }
}

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        if !self.digest.is_empty() {
            write!(f, ":{}", self.digest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(version: &str, digit: char) -> JobId {
        JobId {
            name: "web".to_owned(),
            version: version.to_owned(),
            digest: digit.to_string().repeat(64),
        }
    }

    #[test]
    fn a_job_is_found_by_as_much_as_is_needed() {
        let all = vec![id("1", 'a'), id("1", 'b'), id("2", 'c')];
        let one = |text: &str| Meant::parse(text).unwrap().one_of(all.clone(), "here");
        assert_eq!(one("web:2").unwrap(), all[2]);
        assert_eq!(one("web:1:A").unwrap(), all[0]);
        assert_eq!(one(&all[1].to_string()).unwrap(), all[1]);
        let refused = one("web:1").unwrap_err();
        assert_eq!(refused.status, 409);
        assert_eq!(
            refused.problem.candidates,
            ["web:1:aaaaaaa", "web:1:bbbbbbb"]
        );
        assert!(
            refused
                .problem
                .hint
                .contains("web:1:aaaaaaa or web:1:bbbbbbb")
        );
        assert_eq!(one("web:3").unwrap_err().status, 404);
        assert_eq!(one("we").unwrap_err().status, 404);
    }

    #[test]
    fn what_can_be_no_jobs_name_is_refused() {
        for text in ["", ":1", "web:", "web:1:xyz", "web:1:a:b"] {
            assert_eq!(Meant::parse(text).unwrap_err().status, 400, "{text}");
        }
    }
}
