//! What was imported, in one file: compressed lines of JSON, so that a damaged end is noticed and
//! nothing of it is half believed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};

use altaz_profile::results::triage::FeedInfo;
use altaz_profile::vulnerability::{Affected, Exploitation, Exploitations, Vulnerability};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Decoded, Feed};

/// Schema identifier in the first line.
const SCHEMA: &str = "altaz.feeds/1";
/// Level of zstd.
const LEVEL: i32 = 3;

/// Vulnerabilities of all imported feeds, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    /// What was imported.
    pub feeds: Vec<FeedInfo>,
    /// Vulnerabilities, all that the feeds say of each together.
    pub vulnerabilities: BTreeMap<String, Vulnerability>,
    /// Exploitation by CVE.
    pub exploitation: Exploitations,
}

/// A store that cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another version's.
    #[error("it is of the form `{0}`, this altaz reads `{SCHEMA}`: import the feeds again")]
    Schema(String),
    /// Damaged.
    #[error("it is damaged at line {line} ({what}): import the feeds again")]
    Damaged {
        /// Line of the unpacked file.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It could not be packed.
    #[error("it cannot be packed: {0}")]
    Pack(#[from] std::io::Error),
}

#[derive(Serialize, Deserialize)]
struct Head {
    schema: String,
    feeds: Vec<FeedInfo>,
    vulnerabilities: usize,
    exploitation: usize,
}

impl Store {
    /// Takes in what was read from one source. What the same feed said before of the same
    /// vulnerability is replaced.
    pub fn add(&mut self, feed: Feed, from: &str, at: &str, decoded: Decoded) {
        let (records, problems) = (decoded.len() as u64, decoded.problems.len() as u64);
        let same = |f: &&mut FeedInfo| f.feed == feed.name() && f.from == from;
        match self.feeds.iter_mut().find(same) {
            Some(known) if known.imported_at == at => {
                known.records += records;
                known.problems += problems;
            }
            known => {
                let info = FeedInfo {
                    feed: feed.name().into(),
                    from: from.into(),
                    imported_at: at.into(),
                    records,
                    problems,
                };
                match known {
                    Some(known) => *known = info,
                    None => self.feeds.push(info),
                }
            }
        }
        for new in decoded.records {
            match self.vulnerabilities.get_mut(&new.id) {
                Some(known) => unite(known, new),
                None => {
                    self.vulnerabilities.insert(new.id.clone(), new);
                }
            }
        }
        for (cve, new) in decoded.exploitation {
            let known = self.exploitation.entry(cve).or_default();
            let Exploitation { epss, epss_of, kev } = new;
            if epss.is_some() {
                (known.epss, known.epss_of) = (epss, epss_of);
            }
            known.kev = kev.or(known.kev.take());
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// When they cannot be packed.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut out = zstd::Encoder::new(Vec::new(), LEVEL)?;
        out.include_checksum(true)?;
        let head = Head {
            schema: SCHEMA.into(),
            feeds: self.feeds.clone(),
            vulnerabilities: self.vulnerabilities.len(),
            exploitation: self.exploitation.len(),
        };
        line(&mut out, &head)?;
        for v in self.vulnerabilities.values() {
            line(&mut out, v)?;
        }
        for e in &self.exploitation {
            line(&mut out, &e)?;
        }
        Ok(out.finish()?)
    }

    /// Reads the bytes of a store.
    ///
    /// # Errors
    /// When they are damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |line: usize, what: &dyn std::fmt::Display| StoreError::Damaged {
            line,
            what: what.to_string(),
        };
        let reader = zstd::Decoder::new(bytes).map_err(|e| damaged(1, &e))?;
        let mut lines = BufReader::new(reader);
        let mut text = String::new();
        let mut number = 0;
        let mut next = |text: &mut String, last: bool| -> Result<usize, StoreError> {
            text.clear();
            number += 1;
            match lines.read_line(text) {
                Ok(0) if last => Ok(number),
                Ok(_) if last => Err(damaged(number, &"it does not end where it should")),
                Ok(0) => Err(damaged(number, &"it ends too early")),
                Ok(_) => Ok(number),
                Err(e) => Err(damaged(number, &e)),
            }
        };
        let at = next(&mut text, false)?;
        let head: Head = serde_json::from_str(&text).map_err(|e| damaged(at, &e))?;
        if head.schema != SCHEMA {
            return Err(StoreError::Schema(head.schema));
        }
        let mut store = Self { feeds: head.feeds, ..Self::default() };
        for _ in 0..head.vulnerabilities {
            let at = next(&mut text, false)?;
            let v: Vulnerability = serde_json::from_str(&text).map_err(|e| damaged(at, &e))?;
            store.vulnerabilities.insert(v.id.clone(), v);
        }
        for _ in 0..head.exploitation {
            let at = next(&mut text, false)?;
            let (cve, e): (String, Exploitation) =
                serde_json::from_str(&text).map_err(|e| damaged(at, &e))?;
            store.exploitation.insert(cve, e);
        }
        // The checksum is at the very end.
        next(&mut text, true)?;
        Ok(store)
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), StoreError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Puts what one feed says beside what others say.
fn unite(known: &mut Vulnerability, new: Vulnerability) {
    let same = |a: &Affected, b: &Affected| {
        (&a.feed, a.ecosystem, &a.package, &a.release)
            == (&b.feed, b.ecosystem, &b.package, &b.release)
    };
    known.affected.retain(|a| !new.affected.iter().any(|b| same(a, b)));
    known.affected.extend(new.affected);
    known.title = known.title.take().or(new.title);
    known.cvss = known.cvss.take().or(new.cvss);
    known.withdrawn |= new.withdrawn;
    for alias in new.aliases {
        if alias != known.id && !known.aliases.contains(&alias) {
            known.aliases.push(alias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::vulnerability::Ecosystem;

    fn decoded(feed: &str, files: &[&str]) -> Decoded {
        let mut a = Affected::new(feed, Ecosystem::Linux, "linux");
        a.files = files.iter().map(|f| (*f).to_owned()).collect();
        let v = Vulnerability { id: "CVE-2024-1".into(), affected: vec![a], ..Default::default() };
        Decoded { records: vec![v], ..Decoded::default() }
    }

    fn store() -> Store {
        let mut store = Store::default();
        store.add(Feed::Cve5, "a", "t1", decoded("kernel-cna", &["a.c"]));
        store.add(Feed::Functions, "b", "t1", decoded("functions", &["b.c"]));
        let kev = Exploitation { kev: Some("2024-05-30".into()), ..Default::default() };
        let kev =
            Decoded { exploitation: [("CVE-2024-1".into(), kev)].into(), ..Default::default() };
        store.add(Feed::Kev, "k", "t1", kev);
        store
    }

    #[test]
    fn feeds_add_up_and_a_newer_import_replaces_the_older_one_of_its_feed() {
        let mut store = store();
        store.add(Feed::Cve5, "a", "t2", decoded("kernel-cna", &["c.c"]));
        let v = &store.vulnerabilities["CVE-2024-1"];
        let files: Vec<&str> = v.affected.iter().map(|a| a.files[0].as_str()).collect();
        assert_eq!(files, ["b.c", "c.c"]);
        assert_eq!(store.feeds.len(), 3);
        assert_eq!(store.feeds[0].imported_at, "t2");
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let store = store();
        let bytes = store.encode().unwrap();
        assert_eq!(Store::decode(&bytes).unwrap(), store);
        for cut in 0..bytes.len() {
            assert!(Store::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            if let Ok(read) = Store::decode(&damaged) {
                assert_eq!(read, store, "{at}");
            }
        }
    }
}
