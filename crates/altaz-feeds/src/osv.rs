//! OSV records (<https://ossf.github.io/osv-schema/>): one a file, or an array of them. Those of Go
//! and RustSec name functions in their ecosystem's own part.

use altaz_profile::version::Scheme;
use altaz_profile::vulnerability::{
    Affected, Ecosystem, VersionEnd, VersionRule, Versions, Vulnerability,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{Decoded, FeedError, Problem, checked, names_of};

#[derive(Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    summary: Option<String>,
    withdrawn: Option<String>,
    #[serde(default)]
    affected: Vec<Entry>,
    #[serde(default)]
    severity: Vec<Severity>,
}

#[derive(Deserialize)]
struct Severity {
    score: String,
}

#[derive(Deserialize)]
struct Entry {
    package: Option<Package>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    ecosystem_specific: Value,
}

#[derive(Deserialize)]
struct Package {
    ecosystem: String,
    name: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| FeedError::json(file, "JSON", &e))?;
    let records = match value {
        Value::Array(records) => records,
        one => vec![one],
    };
    let mut out = Decoded::default();
    for (i, value) in records.into_iter().enumerate() {
        let name = value.get("id").and_then(Value::as_str);
        let name = name.map_or_else(|| format!("record {}", i + 1), str::to_owned);
        match serde_json::from_value::<Record>(value) {
            Ok(record) => add(file, &record, &mut out),
            Err(e) => out.problems.push(Problem::new(file, name, "record", e.to_string())),
        }
    }
    Ok(out)
}

fn add(file: &str, record: &Record, out: &mut Decoded) {
    let (id, aliases) = names_of(&record.id, &record.aliases);
    let mut vulnerability = Vulnerability {
        id,
        aliases,
        title: record.summary.clone(),
        cvss: record.severity.first().map(|s| s.score.clone()),
        withdrawn: record.withdrawn.is_some(),
        affected: Vec::new(),
    };
    for (i, entry) in record.affected.iter().enumerate() {
        let Some(package) = &entry.package else { continue };
        let (ecosystem, release) = match package.ecosystem.split_once(':') {
            Some((ecosystem, release)) => (ecosystem, Some(release.to_owned())),
            None => (package.ecosystem.as_str(), None),
        };
        let (known, scheme) = match ecosystem {
            "Debian" => (Ecosystem::Debian, Some(Scheme::Dpkg)),
            "Go" => (Ecosystem::Go, Some(Scheme::Semver)),
            "crates.io" => (Ecosystem::Crates, Some(Scheme::Semver)),
            "Linux" => (Ecosystem::Linux, Some(Scheme::Linux)),
            _ => (Ecosystem::Other, None),
        };
        let name = match known {
            Ecosystem::Linux => "linux".to_owned(),
            Ecosystem::Other => format!("{ecosystem}/{}", package.name),
            _ => package.name.clone(),
        };
        let mut one = Affected::new("osv", known, &name);
        one.release = release;
        one.functions = functions(&entry.ecosystem_specific);
        let place = format!("affected[{i}].ranges");
        let problem = |what| Problem::new(file, &record.id, &place, what);
        match scheme {
            Some(scheme) => {
                let rules = rules(&entry.ranges);
                one.commits = commits(&entry.ranges);
                if !rules.is_empty() {
                    let versions = Versions { scheme, default_affected: false, rules };
                    one.versions = checked(versions, problem, &mut out.problems);
                }
            }
            None if entry.ranges.iter().any(|r| r.kind != "GIT") => {
                out.problems.push(problem(format!("unknown version scheme of `{ecosystem}`")));
            }
            None => {}
        }
        vulnerability.affected.push(one);
    }
    out.records.push(vulnerability);
}

fn rules(ranges: &[Range]) -> Vec<VersionRule> {
    let mut rules = Vec::new();
    for range in ranges.iter().filter(|r| r.kind != "GIT") {
        let mut from: Option<String> = None;
        let mut open = false;
        for event in &range.events {
            if let Some(introduced) = &event.introduced {
                from = (introduced != "0").then(|| introduced.clone());
                open = true;
            }
            let end = match (&event.fixed, &event.last_affected) {
                (Some(fixed), _) => VersionEnd::Below(fixed.clone()),
                (None, Some(last)) => VersionEnd::Upto(last.clone()),
                (None, None) => continue,
            };
            rules.push(VersionRule { from: from.take(), to: end, affected: true });
            open = false;
        }
        if open {
            rules.push(VersionRule { from, to: VersionEnd::Open, affected: true });
        }
    }
    rules
}

fn commits(ranges: &[Range]) -> Vec<String> {
    let git = ranges.iter().filter(|r| r.kind == "GIT").flat_map(|r| &r.events);
    git.filter_map(|e| e.fixed.clone()).collect()
}

/// Functions of Go (`imports[].symbols`, with the package's path) and of RustSec
/// (`affects.functions`).
fn functions(specific: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let texts = |v: Option<&Value>| -> Vec<String> {
        let list = v.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let imports = specific.get("imports").and_then(Value::as_array);
    for import in imports.map(Vec::as_slice).unwrap_or_default() {
        let path = import.get("path").and_then(Value::as_str).unwrap_or_default();
        all.extend(texts(import.get("symbols")).into_iter().map(|s| format!("{path}.{s}")));
    }
    all.extend(texts(specific.get("affects").and_then(|a| a.get("functions"))));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = r#"{"schema_version":"1.3.1","id":"GO-2021-0070","aliases":["CVE-2016-3697"],
      "summary":"s","affected":[{"package":{"name":"github.com/opencontainers/runc","ecosystem":"Go"},
      "ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"0.1.0"}]}],
      "ecosystem_specific":{"imports":[{"path":"github.com/opencontainers/runc/libcontainer/user",
        "symbols":["GetExecUser"]}]}}]}"#;

    #[test]
    fn a_go_record_has_the_cves_name_its_range_and_its_symbols() {
        let out = decode("GO-2021-0070.json", GO.as_bytes()).unwrap();
        let v = &out.records[0];
        assert_eq!(
            (v.id.as_str(), &v.aliases[..]),
            ("CVE-2016-3697", &["GO-2021-0070".to_owned()][..])
        );
        let a = &v.affected[0];
        assert_eq!(a.functions, ["github.com/opencontainers/runc/libcontainer/user.GetExecUser"]);
        let versions = a.versions.as_ref().unwrap();
        assert_eq!((versions.affects("0.0.9"), versions.affects("1.1.15")), (Ok(true), Ok(false)));
    }

    #[test]
    fn one_broken_record_of_an_array_does_not_cost_the_others() {
        let text = format!(
            r#"[{{"id":"X-1","affected":3}},{GO},
            {{"id":"PYSEC-1","affected":[{{"package":{{"name":"flask","ecosystem":"PyPI"}},
              "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}}]}}]}}]}}]"#
        );
        let out = decode("all.json", text.as_bytes()).unwrap();
        assert_eq!(out.records.len(), 2);
        let texts: Vec<String> = out.problems.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("all.json, X-1, record: invalid type"), "{texts:?}");
        assert!(
            texts[1].contains("PYSEC-1, affected[0].ranges: unknown version scheme of `PyPI`"),
            "{texts:?}"
        );
    }

    #[test]
    fn a_release_of_a_distribution_is_kept() {
        let text = r#"{"id":"DSA-1","schema_version":"1","affected":[{"package":{"name":"linux","ecosystem":"Debian:13"},
          "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"6.12.43-1"}]}]}]}"#;
        let out = decode("d.json", text.as_bytes()).unwrap();
        let a = &out.records[0].affected[0];
        assert_eq!((a.release.as_deref(), a.ecosystem), (Some("13"), Ecosystem::Debian));
    }
}
