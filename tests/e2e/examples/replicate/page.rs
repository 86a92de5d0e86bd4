//! The page of the replication, and its figures as JSON.

use std::fmt::Write as _;
use std::path::Path;

use altaz_e2e::repository;
use altaz_profile::{Context, Evidence, Layer, Phase, file, ops};
use serde_json::{Value, json};

use crate::Result;
use crate::run::Measured;

/// Published unique host-kernel functions (nabla-measurements): service, deployment, figure.
const PUBLISHED: [(&str, &str, u64); 9] = [
    ("node", "runc", 499),
    ("redis", "runc", 385),
    ("tornado", "runc", 536),
    ("node", "runsc-ptrace", 330),
    ("redis", "runsc-ptrace", 290),
    ("tornado", "runsc-ptrace", 281),
    ("node", "qemu-microvm", 281),
    ("redis", "qemu-microvm", 332),
    ("tornado", "qemu-microvm", 268),
];

/// One line of the table.
pub struct Row {
    /// Service.
    pub service: String,
    /// Deployment.
    pub deployment: String,
    /// Host-kernel functions of the exact instrument; why there are none.
    pub exact: std::result::Result<u64, String>,
    /// The live instrument and the published method; why there is nothing.
    pub measured: std::result::Result<Measured, String>,
}

/// Host-kernel functions of an exact profile, serve phase, net of the idle machine.
pub fn exact(path: &Path) -> std::result::Result<u64, String> {
    let profile = file::read(path).map_err(|e| e.to_string())?;
    debug_assert!(profile.units.iter().all(|u| u.evidence == Evidence::Exercised));
    let kernel = ops::service_units(&profile, Phase::Serve)
        .into_iter()
        .filter(|u| u.layer == Layer::HostKernel)
        .count();
    let background = profile.units.iter().filter(|u| u.context == Context::Background).count();
    eprintln!(
        "{}: {kernel} host-kernel functions, {background} rows of background",
        path.display()
    );
    Ok(kernel as u64)
}

const METHOD: &str = "\
## What differs

- **The published method** (nabla-measurements) traces with function_graph on the core that the deployment is
  pinned to, drops interrupts and keeps what the default ring buffer still holds at the end. Figures of it here:
  unique function names in that buffer; *overwritten* events are those that the buffer had lost by then. Everything
  on that core counts, whoever it runs for; threads on other cores (the kernel's own workers) do not.
- **exact** counts every function that the lab executed while it served, on all cores, in whatever context, at a
  rate above that of the idle machine; also those that the tracer cannot see (notrace, assembly).
- **live** counts the functions that the function tracer can see, in tasks and kernel workers of the deployment
  alone, until each was seen in three windows.
- The published deployments were docker, gVisor's ptrace platform and Kata Containers on QEMU, on kernels and
  versions of 2018; here they are runc, gVisor's ptrace platform and a plain QEMU microvm guest on the lab's
  kernel, under emulation. Figures of the two tables are comparable in their order, not in their size.
- No figure here is \"all code\": each is what 300 requests at 10/s traversed.
";

/// What is kept of a line: figures, and why there are none.
fn kept(row: &Row, figure: u64) -> Value {
    let measured = row.measured.as_ref().ok();
    json!({
        "service": row.service, "deployment": row.deployment, "published": figure,
        "exact": row.exact.as_ref().ok(), "exact_error": row.exact.as_ref().err(),
        "live": measured.map(|m| m.live), "live_lost": measured.map(|m| m.live_lost),
        "published_method": measured.map(|m| m.published),
        "events": measured.map(|m| m.events), "overrun": measured.map(|m| m.overrun),
        "live_failed_requests": measured.map(|m| m.failed.0),
        "published_method_failed_requests": measured.map(|m| m.failed.1),
        "error": row.measured.as_ref().err(),
    })
}

/// Cells of a line, and what must be said below the table.
fn cells(row: &Value, reasons: &mut Vec<String>) -> [String; 4] {
    let number = |key: &str| row[key].as_u64();
    let shown = |key: &str| number(key).map_or("–".to_owned(), |n| n.to_string());
    let name = format!(
        "{} in {}",
        row["service"].as_str().unwrap_or("–"),
        row["deployment"].as_str().unwrap_or("–")
    );
    if let Some(why) = row["exact_error"].as_str() {
        reasons.push(format!("- {name}, exact: {why}"));
    }
    let exact = shown("exact");
    if let Some(why) = row["error"].as_str() {
        reasons.push(format!("- {name}: {why}"));
        return ["failed".to_owned(), "failed".to_owned(), "failed".to_owned(), exact];
    }
    let failed = ["live_failed_requests", "published_method_failed_requests"]
        .map(|key| number(key).unwrap_or(0));
    if failed != [0, 0] {
        reasons.push(format!(
            "- {name}: {} requests while altaz watched, {} while the published method did",
            failed[0], failed[1]
        ));
    }
    [
        shown("published_method"),
        format!("{}, {}", shown("events"), shown("overrun")),
        format!("{} ({})", shown("live"), shown("live_lost")),
        exact,
    ]
}

/// Writes both, atomically enough for a page: whole or not. Lines that are not measured this time keep what an earlier
/// run left in the JSON file: each is a lab of its own.
pub fn write(rows: &[Row], json_path: &Path) -> Result<()> {
    let mut out = String::from(
        "# The published table, on the same work\n\n\
         Unique host-kernel functions while a service answers 300 requests at 10/s. Written by \
         `make replicate`; do not edit. Published figures: nabla-measurements (docker, gVisor ptrace, \
         Kata QEMU).\n\n\
         | service | deployment | published | published method here | its events: kept, overwritten | \
         altaz live (events lost) | altaz exact |\n|---|---|---|---|---|---|---|\n",
    );
    let earlier: Vec<Value> = std::fs::read(json_path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let mut reasons = Vec::new();
    let mut json_rows = Vec::new();
    for (service, deployment, figure) in PUBLISHED {
        let row = rows.iter().find(|r| r.service == service && r.deployment == deployment);
        let left = || {
            let it = |row: &&Value| row["service"] == service && row["deployment"] == deployment;
            earlier.iter().find(it).cloned()
        };
        let row = row.map(|row| kept(row, figure)).or_else(left);
        let cells = match &row {
            Some(row) => cells(row, &mut reasons),
            None => [const { "not run" }; 4].map(str::to_owned),
        };
        json_rows.extend(row);
        let cells = cells.join(" | ");
        let _ = writeln!(out, "| {service} | {deployment} | {figure} | {cells} |");
    }
    if !reasons.is_empty() {
        let _ = writeln!(out, "\nWhat failed:\n\n{}", reasons.join("\n"));
    }
    out.push('\n');
    out.push_str(METHOD);
    if let Some(dir) = json_path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(json_path, serde_json::to_vec_pretty(&json_rows)?)?;
    let page = repository().join("docs/replication.md");
    let new = page.with_extension("md.new");
    std::fs::write(&new, out)?;
    Ok(std::fs::rename(new, page)?)
}
