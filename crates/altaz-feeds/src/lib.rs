//! Bytes of vulnerability feeds, as their publishers write them → vulnerabilities; and the store
//! that keeps what was read.
//!
//! Pure: bytes in, values out. What is absent here: files, directories, the network, clocks, and any
//! judgement about a deployment.
//!
//! A feed is other people's work, and one broken record must not cost the rest: whatever can be read
//! is read, and what cannot is a [`Problem`] that names file, record and field.

mod cve5;
mod debian;
mod dyad;
mod lines;
mod osv;
mod problem;
mod rustsec;
mod scores;
mod store;

use std::borrow::Cow;
use std::io::Read;

use altaz_profile::vulnerability::{Exploitations, Vulnerability};

pub use problem::{FeedError, Problem};
pub use store::{Store, StoreError};

/// A feed never unpacks to more than this, in bytes.
const MOST: u64 = 2 << 30;

/// What kind of feed some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feed {
    /// A CVE record, JSON 5 (the kernel CNA's, or any other's).
    Cve5,
    /// The kernel CNA's pairs of introducing and fixing versions.
    Dyad,
    /// An OSV record, or an array of them.
    Osv,
    /// A RustSec advisory: TOML in Markdown.
    RustSec,
    /// The Debian security tracker's JSON.
    Debian,
    /// EPSS scores, CSV.
    Epss,
    /// CISA's Known Exploited Vulnerabilities, JSON or CSV.
    Kev,
    /// One JSON object a line, with the functions that a fix changes.
    Functions,
}

impl Feed {
    /// Its name, as the store and findings say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cve5 => "cve",
            Self::Dyad => "kernel-dyad",
            Self::Osv => "osv",
            Self::RustSec => "rustsec",
            Self::Debian => "debian",
            Self::Epss => "epss",
            Self::Kev => "kev",
            Self::Functions => "functions",
        }
    }
}

/// What some bytes of a feed hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decoded {
    /// Vulnerabilities.
    pub records: Vec<Vulnerability>,
    /// Scores and known exploitation, by CVE.
    pub exploitation: Exploitations,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl Decoded {
    /// Number of records, of either kind.
    pub fn len(&self) -> usize {
        self.records.len() + self.exploitation.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a file of this name can be a feed at all. Directories of published feeds also hold
/// licences, scripts and checksums.
pub fn is_candidate(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let file = name.rsplit('/').next().unwrap_or(name);
    let readme =
        file.eq_ignore_ascii_case("readme.md") || file.eq_ignore_ascii_case("contributing.md");
    !readme && [".json", ".jsonl", ".dyad", ".csv", ".md"].iter().any(|e| file.ends_with(e))
}

/// Unpacks gzip, where the bytes are that.
///
/// # Errors
/// When the packed data is damaged, or larger than a feed can be.
pub fn unpack<'a>(file: &str, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, FeedError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(MOST + 1);
    reader
        .read_to_end(&mut out)
        .map_err(|e| FeedError::new(file, format!("its gzip data is damaged: {e}")))?;
    if out.len() as u64 > MOST {
        return Err(FeedError::new(file, "it unpacks to more than 2 GiB: it is no feed"));
    }
    Ok(Cow::Owned(out))
}

/// What kind of feed these (unpacked) bytes are.
pub fn recognise(file: &str, bytes: &[u8]) -> Option<Feed> {
    let name = file.strip_suffix(".gz").unwrap_or(file);
    if name.ends_with(".dyad") {
        return Some(Feed::Dyad);
    }
    let head = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if name.ends_with(".md") {
        return text.starts_with("```toml").then_some(Feed::RustSec);
    }
    if name.ends_with(".csv") {
        let lower = text.to_ascii_lowercase();
        let header = lower.lines().find(|l| !l.starts_with('#')).unwrap_or_default();
        let columns: Vec<&str> = header.split(',').map(|c| c.trim_matches('"')).collect();
        return if columns.contains(&"epss") {
            Some(Feed::Epss)
        } else if columns.contains(&"cveid") {
            Some(Feed::Kev)
        } else {
            None
        };
    }
    if name.ends_with(".jsonl") {
        return Some(Feed::Functions);
    }
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let whole = || String::from_utf8_lossy(bytes);
    if text.contains("\"catalogVersion\"") || text.contains("\"dateReleased\"") {
        Some(Feed::Kev)
    } else if whole().contains("\"CVE_RECORD\"") || whole().contains("\"cveMetadata\"") {
        Some(Feed::Cve5)
    } else if text.contains("\"releases\"") && text.contains("\"repositories\"") {
        Some(Feed::Debian)
    } else if whole().contains("\"schema_version\"") || whole().contains("\"affected\"") {
        Some(Feed::Osv)
    } else {
        None
    }
}

/// Reads the bytes of one file. `file` is its name in problems, and helps to recognise the feed.
///
/// # Errors
/// When nothing in it can be read.
pub fn decode(file: &str, bytes: &[u8]) -> Result<(Feed, Decoded), FeedError> {
    let bytes = unpack(file, bytes)?;
    let feed = recognise(file, &bytes).ok_or_else(|| {
        FeedError::new(
            file,
            "no feed that altaz knows: CVE JSON 5, .dyad, OSV, RustSec, Debian tracker, EPSS, KEV",
        )
    })?;
    let decoded = match feed {
        Feed::Cve5 => cve5::decode(file, &bytes),
        Feed::Dyad => dyad::decode(file, &bytes),
        Feed::Osv => osv::decode(file, &bytes),
        Feed::RustSec => rustsec::decode(file, &bytes),
        Feed::Debian => debian::decode(file, &bytes),
        Feed::Epss => scores::epss(file, &bytes),
        Feed::Kev => scores::kev(file, &bytes),
        Feed::Functions => lines::decode(file, &bytes),
    }?;
    Ok((feed, decoded))
}

/// Whether a text is the name of a CVE.
pub(crate) fn is_cve(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix("CVE-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(year, n)| year.len() == 4 && digits(year) && digits(n))
}

/// Splits the name of a vulnerability from its other names: the CVE's first.
pub(crate) fn names_of(own: &str, others: &[String]) -> (String, Vec<String>) {
    let id = if is_cve(own) {
        own
    } else {
        others.iter().map(String::as_str).find(|a| is_cve(a)).unwrap_or(own)
    };
    let mut aliases: Vec<String> = Vec::new();
    for name in std::iter::once(own).chain(others.iter().map(String::as_str)) {
        if name != id && !aliases.iter().any(|a| a == name) {
            aliases.push(name.to_owned());
        }
    }
    (id.to_owned(), aliases)
}

/// Keeps versions that can all be meant; what cannot be is a problem, and nothing is known of them.
pub(crate) fn checked(
    versions: altaz_profile::vulnerability::Versions,
    problem: impl FnOnce(String) -> Problem,
    problems: &mut Vec<Problem>,
) -> Option<altaz_profile::vulnerability::Versions> {
    match versions.check() {
        Ok(()) => Some(versions),
        Err(e) => {
            problems.push(problem(e.to_string()));
            None
        }
    }
}
