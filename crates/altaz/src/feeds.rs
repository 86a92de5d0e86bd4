//! `altaz feeds`: takes published vulnerability feeds into the store that `altaz triage` reads.
//!
//! Files and directories are read here, and the network is used here, by the system's `curl`; what
//! the bytes mean is `altaz-feeds`' business.

mod update;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use altaz_feeds::{Problem, Store};
use anyhow::Context as _;

use crate::cli::{Context, FeedsArgs, FeedsImportArgs, FeedsVerb};
use crate::exit::{Exit, Interrupted};
use crate::output::{write_file, write_stdout};

/// The store's file in its directory.
const STORE: &str = "store.altaz-feeds";
/// Problems that are printed one by one.
const SHOWN: usize = 10;

pub(crate) fn run(args: &FeedsArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let directory = directory(args.feeds.as_deref(), cx);
    match &args.verb {
        FeedsVerb::Import(args) => import(&directory, args, cx),
        FeedsVerb::Update(args) => update::run(&directory, args, cx),
        FeedsVerb::List => list(&directory),
    }
}

/// Directory of the store.
pub(crate) fn directory(named: Option<&Path>, cx: &Context) -> PathBuf {
    named.map_or_else(|| cx.settings.cache_dir.join("feeds"), Path::to_owned)
}

/// Reads the store.
pub(crate) fn load(directory: &Path) -> anyhow::Result<Store> {
    let path = directory.join(STORE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => anyhow::bail!(
            "no feeds are in {}: import some (altaz feeds import PATH…), or fetch them (altaz feeds update)",
            directory.display()
        ),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    Store::decode(&bytes).with_context(|| format!("cannot read {}", path.display()))
}

/// The store, or an empty one where there is none.
fn load_or_new(directory: &Path) -> anyhow::Result<Store> {
    if directory.join(STORE).exists() { load(directory) } else { Ok(Store::default()) }
}

/// What an import did.
#[derive(Debug, Default)]
struct Sum {
    files: usize,
    records: usize,
    skipped: usize,
    problems: Vec<Problem>,
    unreadable: Vec<String>,
}

fn import(directory: &Path, args: &FeedsImportArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let mut store = load_or_new(directory)?;
    let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let step = cx.ui.step("reading feeds", None);
    let mut sum = Sum::default();
    for path in &args.paths {
        let before = sum.records;
        take_path(path, &at, &mut store, &mut sum, cx)?;
        if sum.records == before && sum.unreadable.is_empty() {
            sum.unreadable.push(format!("{}: it holds no feed that altaz knows", path.display()));
        }
    }
    step.done(&format!("{} records of {} files", sum.records, sum.files));
    finish(directory, &store, &sum, cx)
}

fn finish(directory: &Path, store: &Store, sum: &Sum, cx: &Context) -> anyhow::Result<ExitCode> {
    for problem in sum.problems.iter().take(SHOWN) {
        cx.ui.warn(&problem.to_string());
    }
    let more = sum.problems.len().saturating_sub(SHOWN);
    if more > 0 {
        cx.ui.warn(&format!("{more} more records could not be read, or only in part"));
    }
    for text in &sum.unreadable {
        cx.ui.warn(text);
    }
    if sum.records == 0 {
        anyhow::bail!("nothing was imported");
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    write_file(&directory.join(STORE), &store.encode()?)?;
    cx.ui.note(&format!(
        "{} vulnerabilities, {} scores in {}",
        store.vulnerabilities.len(),
        store.exploitation.len(),
        directory.display()
    ));
    let whole = sum.problems.is_empty() && sum.unreadable.is_empty();
    Ok(if whole { Exit::Fine } else { Exit::Incomplete }.into())
}

/// A file, or all files of a directory that can be feeds.
fn take_path(
    path: &Path,
    at: &str,
    store: &mut Store,
    sum: &mut Sum,
    cx: &Context,
) -> anyhow::Result<()> {
    let from = path.display().to_string();
    if !path.is_dir() {
        let bytes = fs::read(path).with_context(|| format!("cannot read {from}"))?;
        take(&from, &from, &bytes, at, store, sum);
        return Ok(());
    }
    let mut files = Vec::new();
    walk(path, &mut files)?;
    files.sort_unstable();
    for file in files {
        if cx.interrupted() {
            return Err(Interrupted.into());
        }
        let name = file.display().to_string();
        if !altaz_feeds::is_candidate(&name) {
            sum.skipped += 1;
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {name}"))?;
        take(&from, &name, &bytes, at, store, sum);
    }
    Ok(())
}

/// The bytes of one file. What cannot be read is noted, and the rest goes on.
fn take(from: &str, name: &str, bytes: &[u8], at: &str, store: &mut Store, sum: &mut Sum) {
    match altaz_feeds::decode(name, bytes) {
        Ok((feed, decoded)) => {
            sum.files += 1;
            sum.records += decoded.len();
            sum.problems.extend(decoded.problems.iter().cloned());
            store.add(feed, from, at, decoded);
        }
        Err(e) => sum.unreadable.push(e.to_string()),
    }
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let what = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(what)? {
        let entry = entry.with_context(what)?;
        // Links are not followed: a feed's directory has no use for them, and they may loop.
        let kind = entry.file_type().with_context(what)?;
        if kind.is_dir() && entry.file_name() != ".git" {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn list(directory: &Path) -> anyhow::Result<ExitCode> {
    let store = load(directory)?;
    let mut text = format!(
        "{} vulnerabilities and {} scores in {}\n",
        store.vulnerabilities.len(),
        store.exploitation.len(),
        directory.display()
    );
    for f in &store.feeds {
        let problems =
            if f.problems > 0 { format!(", {} problems", f.problems) } else { String::new() };
        text.push_str(&format!(
            "  {:<12} {:>7} records{problems}, imported {} from {}\n",
            f.feed, f.records, f.imported_at, f.from
        ));
    }
    write_stdout(&text)?;
    Ok(Exit::Fine.into())
}
