//! The Debian security tracker's JSON (<https://security-tracker.debian.org/tracker/data/json>): by
//! source package, CVE and release. A fix that was backported into a release's version is fixed there,
//! whatever upstream's number says.

use std::collections::BTreeMap;

use altaz_profile::version::{Scheme, check};
use altaz_profile::vulnerability::{Affected, Ecosystem, Versions, Vulnerability};
use serde::Deserialize;

use crate::{Decoded, FeedError, Problem};

/// Feed name.
pub(crate) const DEBIAN: &str = "debian";

#[derive(Deserialize)]
struct Entry {
    description: Option<String>,
    #[serde(default)]
    releases: BTreeMap<String, Release>,
}

#[derive(Deserialize)]
struct Release {
    status: String,
    fixed_version: Option<String>,
}

type Tracker = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let tracker: Tracker =
        serde_json::from_slice(bytes).map_err(|e| FeedError::json(file, "tracker's JSON", &e))?;
    let mut by_id: BTreeMap<String, Vulnerability> = BTreeMap::new();
    let mut problems = Vec::new();
    for (package, entries) in tracker {
        for (id, value) in entries {
            let record = format!("{package} {id}");
            let entry: Entry = match serde_json::from_value(value) {
                Ok(entry) => entry,
                Err(e) => {
                    problems.push(Problem::new(file, record, "record", e.to_string()));
                    continue;
                }
            };
            let v = by_id.entry(id.clone()).or_insert_with(|| Vulnerability {
                id,
                title: entry.description.as_deref().map(first_line),
                ..Vulnerability::default()
            });
            for (name, release) in entry.releases {
                let mut one = Affected::new(DEBIAN, Ecosystem::Debian, &package);
                let place = |field: &str| format!("releases.{name}.{field}");
                one.versions = match versions(&release) {
                    Ok(versions) => versions,
                    Err((field, what)) => {
                        problems.push(Problem::new(file, &record, place(field), what));
                        None
                    }
                };
                one.release = Some(name);
                v.affected.push(one);
            }
        }
    }
    Ok(Decoded { records: by_id.into_values().collect(), problems, ..Decoded::default() })
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}

fn versions(release: &Release) -> Result<Option<Versions>, (&'static str, String)> {
    match (release.status.as_str(), release.fixed_version.as_deref()) {
        // `0`: the release was never affected.
        ("resolved", Some("0")) => {
            Ok(Some(Versions { scheme: Scheme::Dpkg, default_affected: false, rules: vec![] }))
        }
        ("resolved", Some(fixed)) => {
            check(Scheme::Dpkg, fixed).map_err(|e| ("fixed_version", e.to_string()))?;
            Ok(Some(Versions::until(Scheme::Dpkg, None, Some(fixed))))
        }
        ("resolved", None) => Err(("fixed_version", "resolved, but in no version".into())),
        ("open", _) => Ok(Some(Versions::until(Scheme::Dpkg, None, None))),
        ("undetermined", _) => Ok(None),
        (other, _) => Err(("status", format!("unknown status `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_open_fixed_in_a_version_or_never_affected() {
        let text = r#"{"linux":{"CVE-2024-1":{"description":"d\nmore","releases":{
            "trixie":{"status":"resolved","repositories":{"trixie":"6.12.43-1"},"fixed_version":"6.12.43-1"},
            "bookworm":{"status":"open","repositories":{}},
            "bullseye":{"status":"resolved","repositories":{},"fixed_version":"0"},
            "sid":{"status":"resolved","repositories":{},"fixed_version":"next"}}},
            "CVE-2024-2":{"releases":7}}}"#;
        let out = decode("json", text.as_bytes()).unwrap();
        let v = &out.records[0];
        let of = |release: &str, version: &str| {
            let a = v.affected.iter().find(|a| a.release.as_deref() == Some(release)).unwrap();
            a.versions.as_ref().map(|r| r.affects(version).unwrap())
        };
        assert_eq!(of("trixie", "6.12.41-1"), Some(true));
        assert_eq!(of("trixie", "6.12.117-1"), Some(false));
        assert_eq!(of("bookworm", "6.1.140-1"), Some(true));
        assert_eq!(of("bullseye", "5.10.1-1"), Some(false));
        assert_eq!(of("sid", "6.12.117-1"), None);
        let texts: Vec<String> = out.problems.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].contains("linux CVE-2024-1, releases.sid.fixed_version: `next`"),
            "{texts:?}"
        );
        assert!(texts[1].contains("linux CVE-2024-2, record"), "{texts:?}");
    }
}
