//! RustSec advisories as their repository holds them: TOML in a Markdown file
//! (<https://github.com/rustsec/advisory-db>).

use std::collections::BTreeMap;

use altaz_profile::version::Scheme;
use altaz_profile::vulnerability::{
    Affected, Ecosystem, VersionEnd, VersionRule, Versions, Vulnerability,
};
use semver::{Op, VersionReq};
use serde::Deserialize;

use crate::{Decoded, FeedError, Problem, checked, names_of};

#[derive(Deserialize)]
struct File {
    advisory: Advisory,
    #[serde(default)]
    versions: Ranges,
    #[serde(default)]
    affected: AffectedPart,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    package: String,
    #[serde(default)]
    aliases: Vec<String>,
    cvss: Option<String>,
    withdrawn: Option<toml::Value>,
}

#[derive(Deserialize, Default)]
struct Ranges {
    #[serde(default)]
    patched: Vec<String>,
    #[serde(default)]
    unaffected: Vec<String>,
}

#[derive(Deserialize, Default)]
struct AffectedPart {
    #[serde(default)]
    functions: BTreeMap<String, toml::Value>,
}

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let text = std::str::from_utf8(bytes).map_err(|e| FeedError::new(file, e.to_string()))?;
    let body = text.trim_start_matches('\u{feff}').trim_start();
    let parts = body.strip_prefix("```toml").and_then(|rest| rest.split_once("\n```"));
    let (head, prose) =
        parts.ok_or_else(|| FeedError::new(file, "its TOML part does not end with ```"))?;
    let parsed: File = toml::from_str(head)
        .map_err(|e| FeedError::new(file, format!("its TOML part: {}", e.to_string().trim())))?;
    let advisory = parsed.advisory;
    let mut out = Decoded::default();
    let (id, aliases) = names_of(&advisory.id, &advisory.aliases);
    let mut affected = Affected::new("rustsec", Ecosystem::Crates, &advisory.package);
    affected.functions = parsed.affected.functions.into_keys().collect();
    let place = |field: &str, what: String| Problem::new(file, &advisory.id, field, what);
    affected.versions = requirements(
        &[
            ("versions.patched", parsed.versions.patched),
            ("versions.unaffected", parsed.versions.unaffected),
        ],
        place,
        &mut out.problems,
    );
    out.records.push(Vulnerability {
        id,
        aliases,
        title: prose.lines().find_map(|l| l.strip_prefix("# ")).map(|t| t.trim().to_owned()),
        cvss: advisory.cvss,
        withdrawn: advisory.withdrawn.is_some(),
        affected: vec![affected],
    });
    Ok(out)
}

/// Everything is affected but what these requirements hold.
pub(crate) fn requirements(
    lists: &[(&str, Vec<String>)],
    place: impl Fn(&str, String) -> Problem,
    problems: &mut Vec<Problem>,
) -> Option<Versions> {
    let mut rules = Vec::new();
    for (field, list) in lists {
        for text in list {
            match rule(text) {
                Ok(rule) => rules.push(rule),
                Err(what) => {
                    problems.push(place(field, format!("`{text}`: {what}")));
                    return None;
                }
            }
        }
    }
    let versions = Versions { scheme: Scheme::Semver, default_affected: true, rules };
    checked(versions, |what| place("versions", what), problems)
}

/// The range of one requirement (`>= 1.2.3, < 2`, `^1.2`).
fn rule(text: &str) -> Result<VersionRule, String> {
    let req = VersionReq::parse(text).map_err(|e| e.to_string())?;
    let (mut from, mut to) = (None, VersionEnd::Open);
    for c in &req.comparators {
        let (minor, patch) = (c.minor.unwrap_or(0), c.patch.unwrap_or(0));
        let at = |major: u64, minor: u64, patch: u64| format!("{major}.{minor}.{patch}");
        let pre = if c.pre.is_empty() { String::new() } else { format!("-{}", c.pre) };
        let this = format!("{}{pre}", at(c.major, minor, patch));
        let up = |n: u64| n.saturating_add(1);
        let below = |v: String| VersionEnd::Below(v);
        match c.op {
            Op::Exact => (from, to) = (Some(this), VersionEnd::Only),
            Op::GreaterEq => from = Some(this),
            Op::Greater => from = Some(at(c.major, minor, up(patch))),
            Op::Less => to = below(this),
            Op::LessEq => to = VersionEnd::Upto(this),
            Op::Tilde | Op::Wildcard => {
                let end = match c.minor {
                    Some(minor) => at(c.major, up(minor), 0),
                    None => at(up(c.major), 0, 0),
                };
                (from, to) = (Some(this), below(end));
            }
            Op::Caret => {
                let end = match (c.major, c.minor, c.patch) {
                    (0, Some(0), Some(patch)) => at(0, 0, up(patch)),
                    (0, Some(minor), _) => at(0, up(minor), 0),
                    (major, _, _) => at(up(major), 0, 0),
                };
                (from, to) = (Some(this), below(end));
            }
            other => return Err(format!("unknown operator {other:?}")),
        }
    }
    Ok(VersionRule { from, to, affected: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2023-0001\"\npackage = \"tokio\"\n\
        date = \"2023-01-04\"\naliases = [\"CVE-2023-22466\"]\n\
        [affected]\nos = [\"windows\"]\n[affected.functions]\n\
        \"tokio::net::windows::named_pipe::ServerOptions::pipe_mode\" = [\">= 1.7.0\"]\n\
        [versions]\npatched = [\">= 1.18.4, < 1.19.0\", \"^1.20.3\"]\nunaffected = [\"< 1.7.0\"]\n```\n\n\
        # reject_remote_clients\n\nText.\n";

    #[test]
    fn an_advisory_has_its_ranges_and_functions() {
        let out = decode("RUSTSEC-2023-0001.md", TEXT.as_bytes()).unwrap();
        assert_eq!(out.problems, []);
        let v = &out.records[0];
        assert_eq!(
            (v.id.as_str(), v.title.as_deref()),
            ("CVE-2023-22466", Some("reject_remote_clients"))
        );
        let versions = v.affected[0].versions.as_ref().unwrap();
        for (version, affected) in [
            ("1.6.9", false),
            ("1.7.0", true),
            ("1.18.4", false),
            ("1.19.1", true),
            ("1.30.0", false),
        ] {
            assert_eq!(versions.affects(version), Ok(affected), "{version}");
        }
        assert_eq!(v.affected[0].functions.len(), 1);
    }

    #[test]
    fn a_requirement_that_is_none_names_its_place() {
        let text = TEXT.replace("^1.20.3", "newer");
        let out = decode("a.md", text.as_bytes()).unwrap();
        assert_eq!(out.records[0].affected[0].versions, None);
        let text = out.problems[0].to_string();
        assert!(text.contains("a.md, RUSTSEC-2023-0001, versions.patched: `newer`"), "{text}");
        assert!(decode("a.md", b"```toml\nid = 1\n").is_err());
        let error = decode("a.md", b"```toml\n[advisory]\nid = 1\n```\n").unwrap_err().to_string();
        assert!(error.contains("TOML part"), "{error}");
    }
}
