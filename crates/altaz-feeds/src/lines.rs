//! One JSON object a line: functions that a vulnerability's fix changes, which the kernel CNA's
//! records leave out (`programRoutines` is empty in all of them). The form is altaz's own:
//!
//! ```json
//! {"cve":"CVE-…","files":["net/a.c"],"functions":["f"],"introduced":"5.13","fixed_versions":["6.1.3","6.2"]}
//! {"cve":"CVE-…","ecosystem":"Go","package":"example.org/m","introduced":["0"],"fixed":["1.2"],"functions":["…"]}
//! ```
//!
//! A line without `ecosystem` is about the kernel. `entries` may name the only system calls that
//! reach the code.

use altaz_profile::version::{Scheme, check};
use altaz_profile::vulnerability::{
    Affected, Ecosystem, VersionEnd, VersionRule, Versions, Vulnerability,
};
use serde::Deserialize;

use crate::{Decoded, FeedError, Problem, checked, dyad, names_of, rustsec};

/// Feed name.
pub(crate) const FUNCTIONS: &str = "functions";

#[derive(Deserialize)]
struct Line {
    cve: Option<String>,
    osv: Option<String>,
    ecosystem: Option<String>,
    package: Option<String>,
    #[serde(default)]
    introduced: OneOrMany,
    #[serde(default)]
    fixed: Vec<String>,
    #[serde(default)]
    fixed_versions: Vec<String>,
    fix_commit: Option<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    functions: Vec<String>,
    #[serde(default)]
    entries: Vec<String>,
    cvss: Option<String>,
    /// A line of another kind of table.
    layer: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut out = Decoded::default();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("line {}", i + 1);
        match serde_json::from_str::<Line>(line) {
            Ok(line) => match record(file, &place, line, &mut out.problems) {
                Ok(v) => out.records.push(v),
                Err(problem) => out.problems.push(problem),
            },
            Err(e) => out.problems.push(Problem::new(file, place, "line", e.to_string())),
        }
    }
    if out.records.is_empty() {
        let first = out.problems.first().map_or_else(|| "it is empty".into(), |p| p.to_string());
        return Err(FeedError::new(file, format!("no line of it can be read: {first}")));
    }
    Ok(out)
}

fn record(
    file: &str,
    place: &str,
    line: Line,
    problems: &mut Vec<Problem>,
) -> Result<Vulnerability, Problem> {
    let wrong = |field: &str, what: &str| Problem::new(file, place, field, what);
    if line.layer.is_some() {
        return Err(wrong("layer", "a table of escapes, not of functions that fixes change"));
    }
    let names: Vec<String> = line.cve.into_iter().chain(line.osv).collect();
    let own = names.first().ok_or_else(|| wrong("cve", "neither `cve` nor `osv` names it"))?;
    let (id, aliases) = names_of(own, &names);
    let ecosystem = match line.ecosystem.as_deref() {
        None | Some("Linux") => Ecosystem::Linux,
        Some("Go") => Ecosystem::Go,
        Some("Rust" | "crates.io") => Ecosystem::Crates,
        Some("Debian") => Ecosystem::Debian,
        Some(_) => Ecosystem::Other,
    };
    let package = match (ecosystem, line.package) {
        (Ecosystem::Linux, _) => "linux".to_owned(),
        (_, Some(package)) => package,
        (_, None) => return Err(wrong("package", "it names no package")),
    };
    let mut affected = Affected::new(FUNCTIONS, ecosystem, &package);
    affected.files = line.files;
    affected.functions = line.functions;
    affected.entries = line.entries;
    affected.commits = line.fix_commit.into_iter().collect();
    let introduced = match line.introduced {
        OneOrMany::None => vec![],
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    };
    let problem =
        |field: &str, what: String| Problem::new(file, format!("{place} ({id})"), field, what);
    affected.versions = match ecosystem {
        Ecosystem::Linux => kernel(&introduced, &line.fixed_versions, problem, problems),
        Ecosystem::Crates => rustsec::requirements(
            &[("fixed", line.fixed), ("introduced", introduced)],
            problem,
            problems,
        ),
        Ecosystem::Go if !introduced.is_empty() => {
            let rules = intervals(&introduced, &line.fixed);
            let versions = Versions { scheme: Scheme::Semver, default_affected: false, rules };
            checked(versions, |what| problem("introduced", what), problems)
        }
        _ => None,
    };
    Ok(Vulnerability {
        id,
        aliases,
        cvss: line.cvss,
        affected: vec![affected],
        ..Default::default()
    })
}

fn kernel(
    introduced: &[String],
    fixed: &[String],
    problem: impl Fn(&str, String) -> Problem,
    problems: &mut Vec<Problem>,
) -> Option<Versions> {
    let from = introduced.first().map_or("0", String::as_str);
    for (field, version) in std::iter::once(("introduced", from))
        .chain(fixed.iter().map(|f| ("fixed_versions", f.as_str())))
    {
        if let Err(e) = check(Scheme::Linux, version) {
            problems.push(problem(field, e.to_string()));
            return None;
        }
    }
    if fixed.is_empty() {
        return None;
    }
    let pairs: Vec<_> = fixed.iter().map(|f| (from.to_owned(), f.clone())).collect();
    Some(dyad::versions_of(&pairs))
}

/// Beginnings and ends that alternate.
fn intervals(introduced: &[String], fixed: &[String]) -> Vec<VersionRule> {
    introduced
        .iter()
        .enumerate()
        .map(|(i, from)| VersionRule {
            from: (from != "0").then(|| from.clone()),
            to: fixed.get(i).map_or(VersionEnd::Open, |f| VersionEnd::Below(f.clone())),
            affected: true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_of_go_and_of_rust_are_read() {
        let text = concat!(
            r#"{"cve":"CVE-2023-52846","fix_commit":"87","introduced":"5.9","fixed_versions":["6.1.63","6.7"],"files":["net/hsr/hsr_forward.c"],"functions":["prp_create_tagged_frame"]}"#,
            "\n",
            r#"{"cve":"CVE-2016-3697","osv":"GO-2021-0070","ecosystem":"Go","package":"github.com/opencontainers/runc","introduced":["0"],"fixed":["0.1.0"],"functions":["x.Y"]}"#,
            "\n",
            r#"{"cve":null,"osv":"RUSTSEC-2021-0067","ecosystem":"Rust","package":"cranelift-codegen","introduced":[],"fixed":[">= 0.73.1"],"functions":[]}"#,
            "\nbroken\n"
        );
        let out = decode("f.jsonl", text.as_bytes()).unwrap();
        assert_eq!(out.records.len(), 3);
        let affects = |i: usize, v: &str| {
            out.records[i].affected[0].versions.as_ref().unwrap().affects(v).unwrap()
        };
        assert_eq!(
            (affects(0, "6.1.62"), affects(0, "6.1.63"), affects(0, "6.12.117")),
            (true, false, false)
        );
        assert_eq!((affects(1, "0.0.5"), affects(1, "1.1.15")), (true, false));
        assert_eq!((affects(2, "0.72.0"), affects(2, "0.80.0")), (true, false));
        assert_eq!(out.records[2].id, "RUSTSEC-2021-0067");
        assert!(out.problems[0].to_string().starts_with("f.jsonl, line 4, line: expected value"));
    }

    #[test]
    fn a_table_of_another_kind_is_refused() {
        let error = decode("e.jsonl", br#"{"cve":"CVE-2015-7504","layer":"VMM"}"#).unwrap_err();
        assert!(error.to_string().contains("table of escapes"), "{error}");
    }
}
