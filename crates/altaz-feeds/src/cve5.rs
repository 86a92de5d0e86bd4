//! CVE records in JSON 5 (<https://github.com/CVEProject/cve-schema>), as the kernel's CNA and all
//! others publish them: one record a file.
//!
//! The kernel's records hold their ranges twice: by commit and by release. The releases are read;
//! from the commits only which ones are fixes.

use altaz_profile::version::Scheme;
use altaz_profile::vulnerability::{
    Affected, Ecosystem, VersionEnd, VersionRule, Versions, Vulnerability,
};
use serde::Deserialize;

use crate::{Decoded, FeedError, Problem, checked, is_cve};

/// Feed name of the kernel's records.
pub(crate) const KERNEL: &str = "kernel-cna";

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "cveMetadata")]
    metadata: Metadata,
    #[serde(default)]
    containers: Containers,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "cveId")]
    id: String,
    #[serde(default)]
    state: String,
}

#[derive(Deserialize, Default)]
struct Containers {
    #[serde(default)]
    cna: Cna,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Cna {
    title: Option<String>,
    #[serde(default)]
    affected: Vec<Product>,
    #[serde(default)]
    metrics: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Product {
    #[serde(default)]
    vendor: String,
    #[serde(default)]
    product: String,
    default_status: Option<String>,
    #[serde(default)]
    program_files: Vec<String>,
    #[serde(default)]
    program_routines: Vec<Routine>,
    #[serde(default)]
    versions: Vec<VersionEntry>,
}

#[derive(Deserialize)]
struct Routine {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionEntry {
    version: String,
    less_than: Option<String>,
    less_than_or_equal: Option<String>,
    status: String,
    version_type: Option<String>,
}

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let record: Record =
        serde_json::from_slice(bytes).map_err(|e| FeedError::json(file, "CVE record", &e))?;
    let id = record.metadata.id;
    if !is_cve(&id) {
        return Err(FeedError::new(file, format!("its field cveMetadata.cveId is `{id}`")));
    }
    let mut out = Decoded::default();
    let cna = record.containers.cna;
    let mut vulnerability = Vulnerability {
        id: id.clone(),
        title: cna.title,
        cvss: cna.metrics.iter().find_map(vector),
        withdrawn: record.metadata.state == "REJECTED",
        ..Vulnerability::default()
    };
    for (i, product) in cna.affected.iter().enumerate() {
        add(file, &id, i, product, &mut vulnerability.affected, &mut out.problems);
    }
    out.records.push(vulnerability);
    Ok(out)
}

fn vector(metric: &serde_json::Value) -> Option<String> {
    ["cvssV4_0", "cvssV3_1", "cvssV3_0"]
        .iter()
        .find_map(|v| metric.get(v)?.get("vectorString")?.as_str().map(str::to_owned))
}

fn add(
    file: &str,
    id: &str,
    index: usize,
    product: &Product,
    all: &mut Vec<Affected>,
    problems: &mut Vec<Problem>,
) {
    let kernel = product.product == "Linux" && product.vendor == "Linux";
    let mut one = if kernel {
        Affected::new(KERNEL, Ecosystem::Linux, "linux")
    } else {
        let name = format!("{}/{}", product.vendor, product.product);
        Affected::new("cve", Ecosystem::Other, &name)
    };
    one.files = product.program_files.clone();
    one.functions = product.program_routines.iter().map(|r| r.name.clone()).collect();
    let git = |v: &&VersionEntry| v.version_type.as_deref() == Some("git");
    one.commits = product.versions.iter().filter(git).filter_map(|v| v.less_than.clone()).collect();
    let place = format!("containers.cna.affected[{index}]");
    if kernel && !product.versions.iter().all(|v| git(&v)) {
        one.versions = releases(file, id, &place, product, problems);
    }
    // The form by commit and the one by release are one entry; a second list of releases (old branches
    // with a backported defect) is one of its own, since either may say that a version is affected.
    let same = |a: &&mut Affected| {
        a.feed == one.feed
            && a.package == one.package
            && (a.versions.is_none() || one.versions.is_none())
    };
    match all.iter_mut().find(same) {
        Some(known) if kernel => {
            known.versions = known.versions.take().or(one.versions);
            known.commits.append(&mut one.commits);
            known.files.append(&mut one.files);
            known.functions.append(&mut one.functions);
            known.files.sort_unstable();
            known.files.dedup();
        }
        _ => all.push(one),
    }
}

fn releases(
    file: &str,
    id: &str,
    place: &str,
    product: &Product,
    problems: &mut Vec<Problem>,
) -> Option<Versions> {
    let mut rules = Vec::new();
    for (i, v) in product.versions.iter().enumerate() {
        let problem = |field: &str, what: String| {
            Problem::new(file, id, format!("{place}.versions[{i}].{field}"), what)
        };
        match v.version_type.as_deref() {
            None | Some("semver" | "original_commit_for_fix") => {}
            Some("git") => continue,
            Some(other) => {
                problems.push(problem("versionType", format!("unknown version scheme `{other}`")));
                return None;
            }
        }
        let affected = match v.status.as_str() {
            "affected" => true,
            "unaffected" => false,
            other => {
                problems.push(problem("status", format!("unknown status `{other}`")));
                return None;
            }
        };
        let to = match (&v.less_than, &v.less_than_or_equal) {
            (Some(end), _) | (_, Some(end)) if end == "*" => VersionEnd::Open,
            (Some(end), _) => VersionEnd::Below(end.clone()),
            (None, Some(end)) => VersionEnd::Upto(end.clone()),
            (None, None) => VersionEnd::Only,
        };
        rules.push(VersionRule { from: Some(v.version.clone()), to, affected });
    }
    let default_affected = product.default_status.as_deref() == Some("affected");
    let versions = Versions { scheme: Scheme::Linux, default_affected, rules };
    let problem = |what| Problem::new(file, id, format!("{place}.versions"), what);
    checked(versions, problem, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(versions: &str) -> String {
        format!(
            r#"{{"dataType":"CVE_RECORD","cveMetadata":{{"cveId":"CVE-2024-1","state":"PUBLISHED"}},
            "containers":{{"cna":{{"title":"t","affected":[
              {{"vendor":"Linux","product":"Linux","programFiles":["net/a.c"],"versions":[
                {{"version":"aa","lessThan":"bb","status":"affected","versionType":"git"}}]}},
              {{"vendor":"Linux","product":"Linux","defaultStatus":"affected",
                "programFiles":["net/a.c"],"versions":[{versions}]}}]}}}}}}"#
        )
    }

    #[test]
    fn both_forms_of_a_kernel_record_are_one_entry() {
        let text = record(
            r#"{"version":"5.13","status":"affected"},
               {"version":"0","lessThan":"5.13","status":"unaffected","versionType":"semver"},
               {"version":"6.12.9","lessThanOrEqual":"6.12.*","status":"unaffected","versionType":"semver"},
               {"version":"6.13","lessThanOrEqual":"*","status":"unaffected","versionType":"original_commit_for_fix"}"#,
        );
        let out = decode("a.json", text.as_bytes()).unwrap();
        assert_eq!(out.problems, []);
        let [affected] = &out.records[0].affected[..] else { panic!("{:?}", out.records) };
        assert_eq!(
            (&affected.files[..], &affected.commits[..]),
            (&["net/a.c".to_owned()][..], &["bb".to_owned()][..])
        );
        let versions = affected.versions.as_ref().unwrap();
        let of = |v: &str| versions.affects(v).unwrap();
        assert_eq!(
            [of("5.12.1"), of("6.12.8"), of("6.12.117"), of("6.13")],
            [false, true, false, false]
        );
    }

    #[test]
    fn a_second_list_of_releases_is_not_lost() {
        // CVE-2026-68118: old branches with a backported defect beside the main line's.
        let path = "kernel-cna/published/2026/CVE-2026-68118.json";
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/feeds/");
        let bytes = std::fs::read(format!("{fixtures}{path}")).unwrap();
        let out = decode(path, &bytes).unwrap();
        assert_eq!(out.problems, []);
        let lists: Vec<&Versions> =
            out.records[0].affected.iter().filter_map(|a| a.versions.as_ref()).collect();
        let any = |v: &str| lists.iter().any(|l| l.affects(v).unwrap());
        for (version, affected) in [
            ("3.0.58", true),
            ("3.5", false),
            ("6.12.117", true),
            ("6.18.42", false),
            ("7.2", false),
        ] {
            assert_eq!(any(version), affected, "{version}");
        }
    }

    #[test]
    fn an_unknown_scheme_and_contradictions_name_their_place_and_keep_the_record() {
        for (versions, field, what) in [
            (
                r#"{"version":"5","status":"affected","versionType":"custom"}"#,
                "versions[0].versionType",
                "unknown version scheme `custom`",
            ),
            (r#"{"version":"5","status":"maybe"}"#, "versions[0].status", "unknown status `maybe`"),
            (
                r#"{"version":"5.1","lessThan":"6","status":"affected"},{"version":"5.2","lessThan":"5.9","status":"unaffected"}"#,
                "versions",
                "contradictory ranges: `5.2`",
            ),
            (
                r#"{"version":"6.6","lessThan":"6.1","status":"affected"}"#,
                "versions",
                "ends before it begins",
            ),
        ] {
            let out = decode("a.json", record(versions).as_bytes()).unwrap();
            assert_eq!(out.records[0].affected[0].versions, None);
            let text = out.problems[0].to_string();
            assert!(text.contains("a.json, CVE-2024-1, containers.cna.affected[1]"), "{text}");
            assert!(text.contains(field) && text.contains(what), "{text}");
        }
    }

    #[test]
    fn a_broken_record_says_where() {
        let error = decode("a.json", b"{\"cveMetadata\": {\"cveId\": 7}}").unwrap_err().to_string();
        assert!(error.contains("a.json") && error.contains("line 1"), "{error}");
    }
}
