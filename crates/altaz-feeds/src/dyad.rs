//! The kernel CNA's `.dyad` files: a line for each pair of introducing and fixing version,
//! `VERSION:COMMIT:VERSION:COMMIT`, 0 for unknown or not fixed. The file's name is the CVE's.

use altaz_profile::version::{Scheme, check, linux_branch};
use altaz_profile::vulnerability::{
    Affected, Ecosystem, VersionEnd, VersionRule, Versions, Vulnerability,
};

use crate::{Decoded, FeedError, Problem, is_cve};

pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let id = name.split('.').next().unwrap_or_default();
    if !is_cve(id) {
        return Err(FeedError::new(file, "its name is not the one of a CVE"));
    }
    let text = String::from_utf8_lossy(bytes);
    let mut out = Decoded::default();
    let mut affected = Affected::new("kernel-dyad", Ecosystem::Linux, "linux");
    let mut pairs = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut problem = |field: &str, what: String| {
            out.problems.push(Problem::new(file, format!("line {}", i + 1), field, what));
        };
        let fields: Vec<&str> = line.split(':').collect();
        let [introduced, _, fixed, commit] = fields[..] else {
            problem("pair", format!("{} fields, not the four of a pair", fields.len()));
            continue;
        };
        let mut sound = true;
        for (field, version) in [("introduced", introduced), ("fixed", fixed)] {
            if let Err(e) = check(Scheme::Linux, version) {
                problem(field, e.to_string());
                sound = false;
            }
        }
        if sound {
            pairs.push((introduced.to_owned(), fixed.to_owned()));
            if commit != "0" {
                affected.commits.push(commit.to_owned());
            }
        }
    }
    // A pair that is left out makes the others say less than the file does.
    if out.problems.is_empty() && !pairs.is_empty() {
        affected.versions = Some(versions_of(&pairs));
    }
    out.records.push(Vulnerability {
        id: id.to_owned(),
        affected: vec![affected],
        ..Vulnerability::default()
    });
    Ok(out)
}

/// Versions between pairs of (introduced, fixed), `0` for unknown and not fixed. A branch with a fix
/// of its own is decided by that; everything else by the main line.
pub(crate) fn versions_of(pairs: &[(String, String)]) -> Versions {
    let rule = |from: &str, to, affected| VersionRule { from: Some(from.into()), to, affected };
    let (mut own, mut rest) = (Vec::new(), Vec::new());
    for (introduced, fixed) in pairs {
        let stable = fixed.matches('.').count() >= 2;
        match linux_branch(fixed).filter(|_| stable) {
            Some((major, minor)) => {
                let branch = format!("{major}.{minor}");
                let from = match linux_branch(introduced) {
                    Some(b) if b == (major, minor) => introduced.as_str(),
                    _ => branch.as_str(),
                };
                // Introduced and fixed in one release: never affected.
                if from != fixed {
                    own.push(rule(from, VersionEnd::Below(fixed.clone()), true));
                }
                own.push(rule(fixed, VersionEnd::Upto(format!("{branch}.*")), false));
            }
            None if fixed == "0" => {
                let stable = introduced.matches('.').count() >= 2;
                let to = match linux_branch(introduced).filter(|_| stable) {
                    Some((major, minor)) => VersionEnd::Upto(format!("{major}.{minor}.*")),
                    None => VersionEnd::Open,
                };
                rest.push(rule(introduced, to, true));
            }
            None => rest.push(rule(introduced, VersionEnd::Below(fixed.clone()), true)),
        }
    }
    own.append(&mut rest);
    Versions { scheme: Scheme::Linux, default_affected: false, rules: own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_decided_by_its_own_fix() {
        let text = "# dyad version: 1.2.0\n\
            5.10.261:67:5.10.261:c4\n5.13:88:5.15.25:3e\n5.13:88:5.16.11:27\n5.13:88:5.17:26\n";
        let out = decode("x/CVE-2022-48785.dyad", text.as_bytes()).unwrap();
        let versions = out.records[0].affected[0].versions.as_ref().unwrap();
        for (version, affected) in [
            ("5.10.260", false),
            ("5.10.261", false),
            ("5.12.1", false),
            ("5.14.3", true),
            ("5.15.24", true),
            ("5.15.30", false),
            ("5.16.4", true),
            ("5.17", false),
            ("6.12.117", false),
        ] {
            assert_eq!(versions.affects(version), Ok(affected), "{version}");
        }
        assert_eq!(out.records[0].affected[0].commits.len(), 4);
    }

    #[test]
    fn what_is_not_fixed_stays_affected() {
        let out = decode("CVE-2024-9.dyad", b"6.1:aa:0:0\n").unwrap();
        let versions = out.records[0].affected[0].versions.as_ref().unwrap();
        assert_eq!((versions.affects("6.12.117"), versions.affects("6.0")), (Ok(true), Ok(false)));
    }

    #[test]
    fn a_broken_line_is_named() {
        let out = decode("CVE-2024-9.dyad", b"6.1:aa:6.2\nx:1:6.2:2\n").unwrap();
        let texts: Vec<String> = out.problems.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("line 1, pair: 3 fields"), "{texts:?}");
        assert!(texts[1].contains("line 2, introduced: `x` is no linux version"), "{texts:?}");
        assert_eq!(out.records[0].affected[0].versions, None);
        assert!(decode("notes.dyad", b"").is_err());
    }
}
