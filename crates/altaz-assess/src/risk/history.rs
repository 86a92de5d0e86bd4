//! Counts in imported feeds as component history: the priors' own counts of a kernel's areas are
//! replaced by those of a feed that is at least as complete.
//!
//! A sample of a feed would make every area look better than it is: fewer identifiers in the same
//! time. So a feed with fewer records than the priors rest on changes nothing, and says so.

use std::collections::{BTreeMap, BTreeSet};

use altaz_profile::vulnerability::{Ecosystem, Vulnerability};

use super::priors::{Class, Priors};

impl Priors {
    /// Takes the counts of the kernel's areas from a feed that was imported `years` after the priors'
    /// own were made. What came of it, in a sentence.
    pub fn take_counts(
        &mut self,
        vulnerabilities: &BTreeMap<String, Vulnerability>,
        years: f64,
    ) -> String {
        let Some(counted) = &self.counted else {
            return "component history is the priors' own: they do not say how many records it \
                    rests on"
                .into();
        };
        let (records, counts) = count(vulnerabilities, &self.classes);
        if records < counted.records {
            return format!(
                "component history is the priors' own ({} records of {}): the imported feeds hold \
                 {records} records of the kernel, a sample of which no density follows",
                counted.records, counted.date
            );
        }
        let said = format!(
            "component history: identifiers of the kernel's areas counted in the {records} imported \
             records ({} in the priors', {})",
            counted.records, counted.date
        );
        for (class, cves) in self.classes.iter_mut().zip(counts) {
            if !is_area(class) {
                continue;
            }
            if let Some(history) = &mut class.history {
                history.cves = cves;
                history.years += years.max(0.0);
                class.source = format!("counted in the imported feeds, was: {}", class.source);
            }
        }
        said
    }
}

/// A kernel's area that its directories name, whose identifiers are all counted.
fn is_area(class: &Class) -> bool {
    !class.directories.is_empty() && class.history.as_ref().is_some_and(|h| !h.selective)
}

/// The kernel's records, and those of each class; one that touches two classes counts in both.
fn count(vulnerabilities: &BTreeMap<String, Vulnerability>, classes: &[Class]) -> (u64, Vec<u64>) {
    let (mut records, mut counts) = (0, vec![0; classes.len()]);
    for v in vulnerabilities.values().filter(|v| !v.withdrawn) {
        let kernel = || v.affected.iter().filter(|a| a.ecosystem == Ecosystem::Linux);
        records += u64::from(kernel().next().is_some());
        let files = kernel().flat_map(|a| &a.files);
        let of: BTreeSet<usize> = files.filter_map(|f| area_of(f, classes)).collect();
        for i in of {
            if let Some(n) = counts.get_mut(i) {
                *n += 1;
            }
        }
    }
    (records, counts)
}

/// The class with the longest directory that a file is below.
fn area_of(file: &str, classes: &[Class]) -> Option<usize> {
    let below = |dir: &str| file.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    let all = classes.iter().enumerate().filter(|(_, c)| is_area(c));
    let fits = all.filter_map(|(i, c)| {
        let longest = c.directories.iter().filter(|d| below(d)).map(String::len).max()?;
        Some((longest, i))
    });
    fits.max_by_key(|&(longest, i)| (longest, std::cmp::Reverse(i))).map(|(_, i)| i)
}

#[cfg(test)]
mod tests {
    use altaz_profile::vulnerability::Affected;

    use super::*;
    use crate::risk::evaluate::prior_gamma;

    fn feed(records: u64, of_ipv4: u64) -> BTreeMap<String, Vulnerability> {
        let one = |i: u64| {
            let mut a = Affected::new("kernel-cna", Ecosystem::Linux, "linux");
            a.files = match i {
                // In two areas: in both.
                0 => vec!["net/ipv4/a.c".into(), "mm/b.c".into(), "net/ipv4/c.c".into()],
                i if i < of_ipv4 => vec!["net/ipv4/tcp.c".into()],
                _ => vec!["include/linux/x.h".into()],
            };
            let id = format!("CVE-2026-{i}");
            (id.clone(), Vulnerability { id, affected: vec![a], ..Vulnerability::default() })
        };
        (0..records).map(one).collect()
    }

    fn class<'p>(priors: &'p Priors, name: &str) -> &'p Class {
        priors.classes.iter().find(|c| c.name == name).unwrap()
    }

    #[test]
    fn a_whole_feed_updates_the_density_by_its_counts_and_time() {
        let mut priors = Priors::built_in().unwrap();
        let before = class(&priors, "linux net/ipv4").history.clone().unwrap();
        let records = priors.counted.as_ref().unwrap().records;
        let said = priors.take_counts(&feed(records, 300), 0.25);
        assert!(said.contains("counted in the"), "{said}");
        let ipv4 = class(&priors, "linux net/ipv4");
        let after = ipv4.history.clone().unwrap();
        assert_eq!((after.cves, after.years), (300, before.years + 0.25));
        assert_eq!(class(&priors, "linux mm").history.as_ref().unwrap().cves, 1);
        assert!(ipv4.source.contains("imported feeds"));
        // What is not a kernel's area keeps its history.
        let qemu = class(&priors, "qemu").history.as_ref().unwrap();
        assert_eq!((qemu.cves, qemu.years), (352, 18.0));

        // The conjugate form: d | k ~ Gamma(a + k, b + S · Y / L).
        let prior = prior_gamma(ipv4.language, &priors);
        let (mln_lines, lifetime) = (after.lines / 1e6, 4.0);
        let posterior = prior.updated(after.cves, mln_lines * after.years / lifetime);
        let exact = (prior.shape + 300.0)
            / (prior.rate + after.lines / 1e6 * (before.years + 0.25) / lifetime);
        assert!((posterior.mean() / exact - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_sample_changes_nothing_and_says_so() {
        let mut priors = Priors::built_in().unwrap();
        let before = priors.clone();
        let records = priors.counted.as_ref().unwrap().records;
        let said = priors.take_counts(&feed(records - 1, 300), 0.25);
        assert_eq!(priors, before);
        assert!(said.contains("a sample"), "{said}");
    }
}
