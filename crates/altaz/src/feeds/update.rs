//! `altaz feeds update`: fetches the feeds from where their publishers put them, with the system's
//! `curl`. It brings the machine's own certificates, proxies and TLS with it, and altaz stays a
//! program that opens no connection.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flate2::read::GzDecoder;

use crate::cli::{Context, FeedsUpdateArgs};
use crate::exit::{Interrupted, UsageError};
use crate::process::{self, Job};

use super::{Sum, finish, load_or_new, take};

/// Longest that one feed may take.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Largest file of an archive that is read, in bytes.
const MOST: u64 = 256 << 20;

/// A feed and where it is published.
struct Published {
    name: &'static str,
    url: &'static str,
    /// Name that its bytes are recognised by.
    file: &'static str,
    /// Whether it is a `tar.gz` of many files.
    archive: bool,
}

const FEEDS: [Published; 5] = [
    Published {
        name: "kernel-cna",
        url: "https://git.kernel.org/pub/scm/linux/security/vulns.git/snapshot/vulns-master.tar.gz",
        file: "vulns.tar.gz",
        archive: true,
    },
    Published {
        name: "debian",
        url: "https://security-tracker.debian.org/tracker/data/json",
        file: "debian.json",
        archive: false,
    },
    Published {
        name: "rustsec",
        url: "https://github.com/rustsec/advisory-db/archive/refs/heads/main.tar.gz",
        file: "advisory-db.tar.gz",
        archive: true,
    },
    Published {
        name: "epss",
        url: "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
        file: "epss.csv.gz",
        archive: false,
    },
    Published {
        name: "kev",
        url: "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
        file: "kev.json",
        archive: false,
    },
];

pub(super) fn run(
    directory: &Path,
    args: &FeedsUpdateArgs,
    cx: &Context,
) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = FEEDS.iter().map(|f| f.name).collect();
    if let Some(unknown) = args.feed.iter().find(|f| !names.contains(&f.as_str())) {
        let text = format!("no feed {unknown:?}; there are {}", names.join(", "));
        return Err(UsageError(text).into());
    }
    let chosen =
        FEEDS.iter().filter(|f| args.feed.is_empty() || args.feed.iter().any(|n| n == f.name));
    let mut store = load_or_new(directory)?;
    let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut sum = Sum::default();
    let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
    for feed in chosen {
        let step = cx.ui.step(&format!("fetching {}", feed.name), None);
        let path = temporary.path().join(feed.file);
        let before = sum.records;
        match fetch(feed.url, &path, cx).and_then(|()| {
            if feed.archive {
                unpack(feed.url, &path, &at, &mut store, &mut sum, cx)
            } else {
                let bytes = std::fs::read(&path)?;
                take(feed.url, feed.file, &bytes, &at, &mut store, &mut sum);
                Ok(())
            }
        }) {
            Ok(()) => step.done(&format!("{} records", sum.records - before)),
            Err(e) if e.is::<Interrupted>() => return Err(e),
            Err(e) => {
                step.done("failed");
                sum.unreadable.push(format!("{}: {e:#}", feed.name));
            }
        }
    }
    if sum.records == 0 {
        for text in &sum.unreadable {
            cx.ui.warn(text);
        }
        anyhow::bail!(
            "no feed could be fetched; without a network, copy the feeds' files here and take them \
             with altaz feeds import PATH"
        );
    }
    finish(directory, &store, &sum, cx)
}

fn fetch(url: &str, path: &Path, cx: &Context) -> anyhow::Result<()> {
    let args: Vec<String> = [
        "--fail",
        "--location",
        "--silent",
        "--show-error",
        "--proto",
        "=https",
        "--retry",
        "2",
        "--connect-timeout",
        "20",
        "--output",
    ]
    .iter()
    .map(|a| (*a).to_owned())
    .chain([path.display().to_string(), "--".to_owned(), url.to_owned()])
    .collect();
    let job = Job { program: "curl", args: &args, dir: None, timeout: TIMEOUT };
    let abort = || cx.interrupted().then(|| "interrupted".to_owned());
    let done = process::run(&job, &abort).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            anyhow::anyhow!("curl is not installed; install it, or use altaz feeds import")
        } else {
            anyhow::Error::from(e).context("cannot run curl")
        }
    })?;
    if cx.interrupted() {
        return Err(Interrupted.into());
    }
    match done.ended.failure() {
        None => Ok(()),
        Some(how) => {
            anyhow::bail!("{url} could not be fetched: curl {how}: {}", done.stderr.trim())
        }
    }
}

/// The files of a `tar.gz`, without writing them anywhere.
fn unpack(
    url: &str,
    path: &Path,
    at: &str,
    store: &mut altaz_feeds::Store,
    sum: &mut Sum,
    cx: &Context,
) -> anyhow::Result<()> {
    let what = || format!("the archive of {url} is damaged");
    let file = File::open(path).with_context(what)?;
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    for entry in archive.entries().with_context(what)? {
        if cx.interrupted() {
            return Err(Interrupted.into());
        }
        let mut entry = entry.with_context(what)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // Beside what is published lie drafts, rejected names and test data.
        let wanted = name.contains("/cve/published/") || name.contains("/crates/");
        if !wanted || !altaz_feeds::is_candidate(&name) || entry.size() > MOST {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(what)?;
        take(url, &name, &bytes, at, store, sum);
    }
    Ok(())
}
