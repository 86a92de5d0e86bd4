//! Versions of components, compared as their ecosystem orders them.
//!
//! Dpkg's order is the one of Debian's policy (epoch, `~` before everything, digits as numbers);
//! Linux' knows release candidates and the `6.12.*` of a stable branch. An ecosystem whose order is
//! not known here is an error, never a guess by text.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::names;

names! {
    /// How versions of a component are ordered.
    Scheme {
        /// Upstream Linux: `6.12`, `6.12.9`, `6.13-rc3`.
        Linux = "linux",
        /// Debian packages: `[EPOCH:]UPSTREAM[-REVISION]`.
        Dpkg = "dpkg",
        /// Semantic versioning 2.0, with or without a leading `v`; missing parts are 0.
        Semver = "semver",
    }
}

/// A text that is no version of its scheme.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no {scheme} version: {why}")]
pub struct VersionError {
    /// The text.
    pub text: String,
    /// The scheme.
    pub scheme: Scheme,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Compares two versions of one scheme.
///
/// # Errors
/// When one of them is no version of the scheme.
pub fn compare(scheme: Scheme, a: &str, b: &str) -> Result<Ordering, VersionError> {
    match scheme {
        Scheme::Linux => Ok(linux(a)?.cmp(&linux(b)?)),
        Scheme::Dpkg => {
            let (a, b) = (Dpkg::parse(a)?, Dpkg::parse(b)?);
            Ok(a.epoch
                .cmp(&b.epoch)
                .then_with(|| dpkg_part(a.upstream, b.upstream))
                .then_with(|| dpkg_part(a.revision, b.revision)))
        }
        Scheme::Semver => Ok(semver(a)?.compare(&semver(b)?)),
    }
}

/// Whether the text is a version of the scheme.
///
/// # Errors
/// When it is not, and why.
pub fn check(scheme: Scheme, text: &str) -> Result<(), VersionError> {
    match scheme {
        Scheme::Linux => linux(text).map(drop),
        Scheme::Dpkg => Dpkg::parse(text).map(drop),
        Scheme::Semver => semver(text).map(drop),
    }
}

/// A Linux version: its numbers, then whether it is the release (1) or a candidate (0), and its number.
type Linux = ([u64; 4], u64, u64);

fn linux(text: &str) -> Result<Linux, VersionError> {
    let error = |why| VersionError { text: text.into(), scheme: Scheme::Linux, why };
    let (numbers, candidate) = match text.split_once("-rc") {
        Some((numbers, n)) => (numbers, Some(n)),
        None => (text, None),
    };
    let mut out = [0; 4];
    for (i, part) in numbers.split('.').enumerate() {
        let slot = out.get_mut(i).ok_or_else(|| error("it has more than four numbers"))?;
        *slot = number(part).ok_or_else(|| error("its parts must be numbers"))?;
    }
    match candidate {
        None => Ok((out, 1, 0)),
        Some(n) => {
            let n = number(n).ok_or_else(|| error("the candidate must have a number"))?;
            Ok((out, 0, n))
        }
    }
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// The first number pair of a Linux version: the stable branch that it belongs to (`6.12`).
pub fn linux_branch(text: &str) -> Option<(u64, u64)> {
    let (numbers, _, _) = linux(text).ok()?;
    let [major, minor, ..] = numbers;
    Some((major, minor))
}

/// Upstream version of a Debian package: without epoch, revision and what Debian appends to it
/// (`1:6.12.43~rc1+dfsg-1~bpo12+1` is `6.12.43-rc1`).
pub fn debian_upstream(version: &str) -> String {
    let after_epoch = match version.split_once(':') {
        Some((epoch, rest)) if number(epoch).is_some() => rest,
        _ => version,
    };
    let upstream = after_epoch.rsplit_once('-').map_or(after_epoch, |(upstream, _)| upstream);
    let (plain, candidate) = match upstream.split_once("~rc") {
        Some((plain, rest)) => (plain, rest.split(|c: char| !c.is_ascii_digit()).next()),
        None => (upstream, None),
    };
    let plain = plain.split(['+', '~']).next().unwrap_or(plain);
    match candidate.filter(|c| !c.is_empty()) {
        Some(n) => format!("{plain}-rc{n}"),
        None => plain.to_owned(),
    }
}

struct Dpkg<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Dpkg<'a> {
    fn parse(text: &'a str) -> Result<Self, VersionError> {
        let error = |why| VersionError { text: text.into(), scheme: Scheme::Dpkg, why };
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => {
                (number(epoch).ok_or_else(|| error("its epoch is no number"))?, rest)
            }
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        if upstream.is_empty() {
            return Err(error("it has no upstream part"));
        }
        if !upstream.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(error("it does not begin with a digit"));
        }
        let fine = |c: u8| c.is_ascii_alphanumeric() || b".+~-:_".contains(&c);
        if !rest.bytes().all(fine) {
            return Err(error("it has characters that no Debian version may have"));
        }
        Ok(Self { epoch, upstream, revision })
    }
}

/// Order of a character outside numbers: `~` before the end, the end before letters, letters before
/// the rest.
fn dpkg_char(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

fn dpkg_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let outside = |s: &[u8]| s.first().is_some_and(|c| !c.is_ascii_digit());
        while outside(a) || outside(b) {
            match dpkg_char(a.first()).cmp(&dpkg_char(b.first())) {
                Ordering::Equal => {}
                other => return other,
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let digits = |s: &mut &[u8]| {
            let end = s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len());
            let (run, rest) = s.split_at(end);
            *s = rest;
            let zeros = run.iter().position(|c| *c != b'0').unwrap_or(run.len());
            run.get(zeros..).unwrap_or_default().to_vec()
        };
        let (x, y) = (digits(&mut a), digits(&mut b));
        match x.len().cmp(&y.len()).then_with(|| x.cmp(&y)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    Ordering::Equal
}

struct Semver<'a> {
    numbers: [u64; 3],
    pre: Option<&'a str>,
}

fn semver(text: &str) -> Result<Semver<'_>, VersionError> {
    let error = |why| VersionError { text: text.into(), scheme: Scheme::Semver, why };
    let plain = text.strip_prefix('v').unwrap_or(text);
    let plain = plain.split_once('+').map_or(plain, |(plain, _)| plain);
    let (numbers, pre) = match plain.split_once('-') {
        Some((numbers, pre)) => (numbers, Some(pre)),
        None => (plain, None),
    };
    let mut out = [0; 3];
    for (i, part) in numbers.split('.').enumerate() {
        let slot = out.get_mut(i).ok_or_else(|| error("it has more than three numbers"))?;
        *slot = number(part).ok_or_else(|| error("its parts must be numbers"))?;
    }
    Ok(Semver { numbers: out, pre })
}

impl Semver<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre, other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => pre_release(a, b),
        })
    }
}

fn pre_release(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) => match (number(x), number(y)) {
                (Some(x), Some(y)) => x.cmp(&y),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => x.cmp(y),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ascending(scheme: Scheme, versions: &[&str]) {
        for (i, a) in versions.iter().enumerate() {
            for (j, b) in versions.iter().enumerate() {
                assert_eq!(compare(scheme, a, b), Ok(i.cmp(&j)), "{a} against {b}");
            }
        }
    }

    #[test]
    fn dpkg_orders_as_its_policy_says() {
        ascending(
            Scheme::Dpkg,
            &[
                "0.0~20240729.0-4",
                "1.0~beta1~svn1245",
                "1.0~beta1",
                "1.0",
                "1.0-1~bpo12+1",
                "1.0a",
                "1.0+dfsg",
                "1.1.15+ds1-2",
                "6.12.9-1",
                "6.12.43-1",
                "6.12.43-1+b2",
                "6.12.117-1",
                "1:0.1-1",
            ],
        );
        // The revision counts: an empty one is less than any, and zeros in front do not count.
        assert_eq!(compare(Scheme::Dpkg, "1.0", "1.0-0"), Ok(Ordering::Equal));
        assert_eq!(compare(Scheme::Dpkg, "1.007-1", "1.7-1"), Ok(Ordering::Equal));
        for wrong in ["", "abc", "x:1", ":1", "-1", "1.0 2"] {
            assert!(check(Scheme::Dpkg, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn linux_candidates_come_before_their_release() {
        ascending(Scheme::Linux, &["5.17", "6.12-rc7", "6.12", "6.12.9", "6.12.117", "6.13-rc1"]);
        assert_eq!(linux_branch("6.12.117"), Some((6, 12)));
        for wrong in ["", "6.x", "next-2024", "6.12-rcx", "1.2.3.4.5", "6..1"] {
            assert!(check(Scheme::Linux, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn semver_orders_pre_releases() {
        ascending(
            Scheme::Semver,
            &["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-rc.2", "v1.0.0", "1.10"],
        );
        assert_eq!(compare(Scheme::Semver, "1.2+build5", "1.2.0"), Ok(Ordering::Equal));
        let error = check(Scheme::Semver, "one").unwrap_err().to_string();
        assert_eq!(error, "`one` is no semver version: its parts must be numbers");
    }

    #[test]
    fn the_upstream_version_of_a_debian_package() {
        for (version, upstream) in [
            ("6.12.117-1", "6.12.117"),
            ("6.12.43-1~bpo12+1", "6.12.43"),
            ("1:2.38.1-5+deb12u3", "2.38.1"),
            ("6.13~rc7-1~exp1", "6.13-rc7"),
            ("1.1.15+ds1-2", "1.1.15"),
            ("0.0~20240729.0-4+b7", "0.0"),
        ] {
            assert_eq!(debian_upstream(version), upstream);
        }
    }

    proptest! {
        #[test]
        fn orders_are_total_and_turn_round(a in "[0-9][0-9a-c.~+]{0,8}(-[0-9a-b~]{1,3})?",
                                           b in "[0-9][0-9a-c.~+]{0,8}(-[0-9a-b~]{1,3})?") {
            let ab = compare(Scheme::Dpkg, &a, &b).unwrap();
            prop_assert_eq!(ab.reverse(), compare(Scheme::Dpkg, &b, &a).unwrap());
            prop_assert_eq!(compare(Scheme::Dpkg, &a, &a), Ok(Ordering::Equal));
            let tilde = format!("{}~", a.split('-').next().unwrap_or(&a));
            let plain = a.split('-').next().unwrap_or(&a);
            prop_assert_eq!(compare(Scheme::Dpkg, &tilde, plain), Ok(Ordering::Less));
        }

        #[test]
        fn no_text_panics(a in ".{0,20}", b in ".{0,20}") {
            for scheme in Scheme::ALL {
                let _ = compare(*scheme, &a, &b);
            }
            let _ = debian_upstream(&a);
        }
    }
}
