//! The page of the replication, and its figures as JSON.

use std::fmt::Write as _;
use std::path::Path;

use altaz_e2e::repository;
use altaz_profile::{Context, Evidence, Layer, Phase, file, ops};
use serde_json::json;

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

/// Writes both, atomically enough for a page: whole or not.
pub fn write(rows: &[Row], json_path: &Path) -> Result<()> {
    let mut out = String::from(
        "# The published table, on the same work\n\n\
         Unique host-kernel functions while a service answers 300 requests at 10/s. Written by \
         `make replicate`; do not edit. Published figures: nabla-measurements (docker, gVisor ptrace, \
         Kata QEMU).\n\n\
         | service | deployment | published | published method here | its events: kept, overwritten | \
         altaz live (events lost) | altaz exact |\n|---|---|---|---|---|---|---|\n",
    );
    let mut reasons = Vec::new();
    let mut json_rows = Vec::new();
    for (service, deployment, figure) in PUBLISHED {
        let row = rows.iter().find(|r| r.service == service && r.deployment == deployment);
        let mut cells = vec!["not run".to_owned(); 4];
        if let Some(row) = row {
            match &row.measured {
                Ok(m) => {
                    cells[0] = m.published.to_string();
                    cells[1] = format!("{}, {}", m.events, m.overrun);
                    cells[2] = format!("{} ({})", m.live, m.live_lost);
                    if m.failed != (0, 0) {
                        reasons.push(format!(
                            "- {service} in {deployment}: {} requests while altaz watched, {} while the published \
                             method did",
                            m.failed.0, m.failed.1
                        ));
                    }
                }
                Err(why) => {
                    cells[..3].fill("failed".to_owned());
                    reasons.push(format!("- {service} in {deployment}: {why}"));
                }
            }
            match &row.exact {
                Ok(n) => cells[3] = n.to_string(),
                Err(why) => {
                    reasons.push(format!("- {service} in {deployment}, exact: {why}"));
                }
            }
            let measured = row.measured.as_ref().ok();
            json_rows.push(json!({
                "service": service, "deployment": deployment, "published": figure,
                "exact": row.exact.as_ref().ok(),
                "live": measured.map(|m| m.live), "live_lost": measured.map(|m| m.live_lost),
                "published_method": measured.map(|m| m.published),
                "live_failed_requests": measured.map(|m| m.failed.0),
                "published_method_failed_requests": measured.map(|m| m.failed.1),
                "events": measured.map(|m| m.events), "overrun": measured.map(|m| m.overrun),
            }));
        }
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
