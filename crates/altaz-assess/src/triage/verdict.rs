//! Whether an installed version has the defect, and by whose word.
//!
//! The distribution's tracker is the authority for its own packages: it knows what was backported.
//! Without it, the publisher's ranges are applied to the upstream version that the package is made
//! of; for the kernel these have a fix for each stable branch.

use altaz_profile::version::{Scheme, VersionError, debian_upstream};
use altaz_profile::vulnerability::{Affected, Ecosystem, Versions};

/// What is known of a component's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has the defect.
    Affected {
        /// Who says so.
        by: String,
        /// First version with the fix, where there is one.
        fixed_in: Option<String>,
    },
    /// It has the fix.
    Fixed(String),
    /// It is older than the defect, or its release never had it.
    Never(String),
    /// It cannot be told, and why.
    Unknown(String),
}

/// An installed version, as the distribution and as upstream count it.
#[derive(Debug, Clone, Copy)]
pub struct Installed<'a> {
    /// Version of the source package, and the names of the release (`trixie`, `13`).
    pub package: Option<(&'a str, &'a [&'a str])>,
    /// Name of the source package.
    pub source: &'a str,
    /// Upstream's version; `None` when it is not known.
    pub upstream: Option<&'a str>,
}

/// Feeds about upstream's versions, the best first.
const UPSTREAM: [&str; 5] = ["kernel-cna", "rustsec", "osv", "kernel-dyad", "functions"];

/// Decides, and says in words where feeds disagree.
pub fn verdict(
    installed: &Installed<'_>,
    ecosystem: Ecosystem,
    affected: &[&Affected],
) -> (Verdict, Option<String>) {
    let distribution = by_distribution(installed, affected);
    let upstream = by_upstream(installed, ecosystem, affected);
    match (distribution, upstream) {
        (Some(d), Some(u)) => {
            let open = |v: &Verdict| matches!(v, Verdict::Affected { .. });
            let unknown = |v: &Verdict| matches!(v, Verdict::Unknown(_));
            let differ = !unknown(&d) && !unknown(&u) && open(&d) != open(&u);
            let note = differ.then(|| format!("upstream's ranges say otherwise ({})", words(&u)));
            if unknown(&d) { (u, None) } else { (d, note) }
        }
        (Some(one), None) | (None, Some(one)) => (one, None),
        (None, None) => (Verdict::Unknown("no feed says which versions are affected".into()), None),
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Affected { by, .. } => format!("{by}: affected"),
        Verdict::Fixed(why) | Verdict::Never(why) | Verdict::Unknown(why) => why.clone(),
    }
}

fn by_distribution(installed: &Installed<'_>, affected: &[&Affected]) -> Option<Verdict> {
    let (version, releases) = installed.package?;
    let ours = |a: &&&Affected| {
        a.ecosystem == Ecosystem::Debian
            && a.package == installed.source
            && a.release.as_deref().is_some_and(|r| releases.contains(&r))
    };
    let one = affected.iter().find(ours)?;
    let by = format!("Debian's tracker for {}", one.release.as_deref().unwrap_or_default());
    Some(match &one.versions {
        None => Verdict::Unknown(format!("{by} has not determined it")),
        Some(versions) if versions.rules.is_empty() && !versions.default_affected => {
            Verdict::Never(format!("{by}: this release is not affected"))
        }
        Some(versions) => decide(versions, version, by),
    })
}

fn by_upstream(
    installed: &Installed<'_>,
    ecosystem: Ecosystem,
    affected: &[&Affected],
) -> Option<Verdict> {
    let of = |feed: &str| -> Vec<&Versions> {
        let ours = affected.iter().filter(|a| a.ecosystem == ecosystem && a.feed == feed);
        ours.filter_map(|a| a.versions.as_ref()).collect()
    };
    let (feed, all) = UPSTREAM.iter().map(|f| (f, of(f))).find(|(_, all)| !all.is_empty())?;
    let Some(version) = installed.upstream else {
        return Some(Verdict::Unknown("upstream's version of it is not known".into()));
    };
    // A record may hold several lists of ranges (of old branches, and of the main line): affected by
    // one is affected. Else the main line's, which says what holds by default, tells why not.
    let decided = |v: &&Versions| {
        let verdict = decide(v, version, format!("{feed}, upstream {version}"));
        let rank = match &verdict {
            Verdict::Affected { .. } => 0,
            Verdict::Unknown(_) => 1,
            _ if v.default_affected => 2,
            _ => 3,
        };
        (rank, verdict)
    };
    all.iter().map(decided).min_by_key(|(rank, _)| *rank).map(|(_, verdict)| verdict)
}

fn decide(versions: &Versions, version: &str, by: String) -> Verdict {
    match versions.affects(version) {
        Ok(true) => {
            Verdict::Affected { by, fixed_in: versions.fixed_after(version).map(str::to_owned) }
        }
        Ok(false) if versions.is_before_the_defect(version) => {
            Verdict::Never(format!("{by}: {version} is older than the defect"))
        }
        Ok(false) => Verdict::Fixed(format!("{by}: fixed in {version}")),
        Err(VersionError { text, scheme, why }) => {
            Verdict::Unknown(format!("{by}: `{text}` is no {scheme} version, {why}"))
        }
    }
}

/// Upstream's version of a kernel: of its package, else of its release where that tells.
pub fn kernel_upstream(package_version: Option<&str>, release: &str) -> Option<String> {
    if let Some(version) = package_version {
        return Some(debian_upstream(version));
    }
    let end = release.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(release.len());
    let (numbers, rest) = release.split_at(end);
    let numbers = numbers.trim_end_matches('.');
    // `6.1.0-25-amd64` names Debian's ABI: the real version is the package's.
    let abi = rest.starts_with('-')
        && rest[1..].starts_with(|c: char| c.is_ascii_digit())
        && numbers.ends_with(".0");
    (!abi && altaz_profile::version::check(Scheme::Linux, numbers).is_ok())
        .then(|| numbers.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::vulnerability::{VersionEnd, VersionRule};

    fn upstream(fixed: &str) -> Affected {
        let mut a = Affected::new("kernel-cna", Ecosystem::Linux, "linux");
        let rule = |from: &str, to, affected| VersionRule { from: Some(from.into()), to, affected };
        a.versions = Some(Versions {
            scheme: Scheme::Linux,
            default_affected: true,
            rules: vec![
                rule("0", VersionEnd::Below("5.13".into()), false),
                rule(fixed, VersionEnd::Upto("6.12.*".into()), false),
            ],
        });
        a
    }

    fn debian(fixed: Option<&str>) -> Affected {
        let mut a = Affected::new("debian", Ecosystem::Debian, "linux");
        a.release = Some("trixie".into());
        a.versions = Some(Versions::until(Scheme::Dpkg, None, fixed));
        a
    }

    fn of(version: &str, affected: &[&Affected]) -> (Verdict, Option<String>) {
        let upstream = debian_upstream(version);
        let installed = Installed {
            package: Some((version, &["trixie", "13"])),
            source: "linux",
            upstream: Some(&upstream),
        };
        verdict(&installed, Ecosystem::Linux, affected)
    }

    #[test]
    fn a_backported_fix_is_a_fix_whatever_upstreams_number_says() {
        // Debian took the fix into 6.12.41-2; upstream has it in 6.12.43.
        let (v, note) = of("6.12.41-2", &[&upstream("6.12.43"), &debian(Some("6.12.41-2"))]);
        assert!(matches!(v, Verdict::Fixed(why) if why.contains("trixie")));
        assert!(note.unwrap().contains("upstream's ranges say otherwise"));
        let (v, _) = of("6.12.41-1", &[&upstream("6.12.43"), &debian(Some("6.12.41-2"))]);
        assert!(matches!(v, Verdict::Affected { fixed_in: Some(f), .. } if f == "6.12.41-2"));
    }

    #[test]
    fn without_the_tracker_the_fix_of_the_stable_branch_decides() {
        let (v, _) = of("6.12.117-1", &[&upstream("6.12.43")]);
        assert!(matches!(v, Verdict::Fixed(why) if why.contains("kernel-cna, upstream 6.12.117")));
        let (v, _) = of("5.10.218-1", &[&upstream("6.12.43")]);
        assert!(matches!(v, Verdict::Never(_)));
        assert!(matches!(of("6.12.117-1", &[]).0, Verdict::Unknown(_)));
    }

    #[test]
    fn a_release_names_upstreams_version_or_not() {
        let of = |release: &str| kernel_upstream(None, release);
        assert_eq!(of("6.12.117+deb13-cloud-amd64").as_deref(), Some("6.12.117"));
        assert_eq!(of("6.18.3").as_deref(), Some("6.18.3"));
        assert_eq!(of("6.1.0-25-amd64"), None);
        assert_eq!(of("next"), None);
        assert_eq!(
            kernel_upstream(Some("6.1.106-3"), "6.1.0-25-amd64").as_deref(),
            Some("6.1.106")
        );
    }
}
