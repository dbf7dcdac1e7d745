//! The schema of job files, from the types that read them: docs/job.schema.json.

use serde_json::Value;

use super::Job;

/// The JSON Schema (2020-12) of a job file, of TOML as of JSON.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Job);
    schema.insert("title".to_owned(), "A job of Parhelion".into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// `UPDATE=1` writes it anew.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/job.schema.json");
        let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        for field in ["tasks", "registration", "addHosts", "expires"] {
            assert!(schema()["properties"][field].is_object(), "{field}");
        }
        assert_eq!(schema()["additionalProperties"], false);
    }
}
