//! One deployment of one service: the live instrument, then the published method, each under the
//! service's own load from outside.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use altaz::compare::session::Parts;
use altaz::load::{ReadyCheck, ServiceLoad, wait_ready};
use altaz_deploy::{ServiceSpec, deployments};
use altaz_e2e::lab::start;
use altaz_e2e::live::record_until_told;
use altaz_lab::protocol::RequestBody;
use altaz_lab::qemu::Accel;
use altaz_lab::{BootOptions, LabVm, places};
use altaz_profile::{Context, Layer, file};

use crate::Result;

const ALTAZ: &str = "/usr/local/bin/altaz";
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(600));
const ADDRESS: IpAddr = IpAddr::V4(places::SERVICE_ADDRESS);
/// One thread for all processors makes a guest slow.
const IN_TURN: u32 = 2;
/// Requests before anything counts.
const WARM_UP: u64 = 20;

/// What was measured of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Host-kernel functions of the live instrument, tasks and kernel workers.
    pub live: u64,
    /// Events that it lost.
    pub live_lost: u64,
    /// Unique functions in the published method's trace.
    pub published: u64,
    /// Events in its buffer at the end, and events that had been overwritten before.
    pub events: u64,
    /// The latter.
    pub overrun: u64,
    /// Requests that failed while the live instrument watched, and while the published method did: a service that is
    /// slowed down many times drops some.
    pub failed: (u64, u64),
}

/// Boots, starts, records.
pub fn run(
    parts: &Parts<'_>,
    spec: &ServiceSpec,
    deployment: &str,
    altaz: &Path,
) -> Result<Measured> {
    let mut boot = BootOptions::new(parts.netns);
    boot.service_image = parts.services.first();
    // Both methods patch functions that both processors execute, and the exact figures are there already.
    boot.accel = Accel::TcgInTurn;
    let vm = &LabVm::boot(parts.lab, boot)?;
    vm.put_file(ALTAZ, 0o755, &std::fs::read(altaz)?)?;
    start(vm, spec, deployment, TIMEOUT)?;
    let mut check = ReadyCheck::of(spec, ADDRESS);
    let patience = deployments::by_name(deployment).map_or(1, |d| d.patience());
    check.timeout = check.timeout.saturating_mul(IN_TURN * patience);
    in_netns(parts, || wait_ready(&check, &|| None).map(drop).map_err(|e| e.to_string()))?;
    load(parts, spec, WARM_UP)?;
    let (live, live_lost, live_failed) = live(parts, spec, vm)?;
    let ((published, events, overrun), published_failed) = published(parts, spec, vm)?;
    vm.call("stop the service", RequestBody::DeployStop, &[], TIMEOUT)?;
    let failed = (live_failed, published_failed);
    Ok(Measured { live, live_lost, published, events, overrun, failed })
}

fn in_netns<T: Send>(
    parts: &Parts<'_>,
    what: impl FnOnce() -> std::result::Result<T, String> + Send,
) -> Result<T> {
    let netns = parts.netns.clone();
    let done = std::thread::scope(|scope| {
        let inside = move || {
            netns.enter().map_err(|e| e.to_string())?;
            what()
        };
        scope.spawn(inside).join()
    });
    Ok(done.map_err(|_| "a thread died")??)
}

/// Sends so many requests; how many of them failed, which must not be all.
fn load(parts: &Parts<'_>, spec: &ServiceSpec, requests: u64) -> Result<u64> {
    let load = ServiceLoad::new(spec, ADDRESS, requests, None);
    in_netns(parts, move || {
        let report = load.run(&|| None, &|_| ()).map_err(|e| e.to_string())?;
        match report.error_summary() {
            Some(errors) if report.error_count() >= requests => {
                Err(format!("all requests failed: {errors}"))
            }
            _ => Ok(report.error_count()),
        }
    })
}

/// Shell words that set `pids` to the processes of the deployment: all that are neither the agent's
/// nor the kernel's nor this shell's.
const PIDS: &str = "pids=
for d in /proc/[0-9]*; do
    p=${d#/proc/}
    [ \"$p\" != 1 ] && [ \"$p\" != $$ ] && [ -n \"$(readlink $d/exe)\" ] || continue
    case $(readlink $d/exe) in */sh|*/dash|*/sleep|*altaz*) continue ;; esac
    pids=\"$pids $p\"
done
[ -n \"$pids\" ] || { echo 'no process of the deployment was found' >&2; exit 1; }
";

fn live(parts: &Parts<'_>, spec: &ServiceSpec, vm: &LabVm) -> Result<(u64, u64, u64)> {
    let script = format!("{PIDS}\nset -- $pids\n{}", record_until_told(ALTAZ, "--pid $1", 120));
    let run = || load(parts, spec, spec.load.requests);
    let (failed, _) = vm.script_while(&script, TIMEOUT, run)?;
    let failed = failed?;
    let dir = tempfile::tempdir()?;
    let local = dir.path().join("live.altaz");
    std::fs::write(&local, vm.get_file("/tmp/live.altaz")?)?;
    let profile = file::read(&local)?;
    let own = |c: Context| matches!(c, Context::Task | Context::KernelWorker);
    let functions: BTreeSet<_> = profile
        .units
        .iter()
        .filter(|u| u.layer == Layer::HostKernel && own(u.context))
        .map(|u| (u.binary.clone(), u.offset))
        .collect();
    let lost = profile.manifest.windows.iter().map(|w| w.lost_events).sum();
    Ok((functions.len() as u64, lost, failed))
}

/// The published method, as it was described.
fn published(parts: &Parts<'_>, spec: &ServiceSpec, vm: &LabVm) -> Result<((u64, u64, u64), u64)> {
    let script = format!(
        "{PIDS}
         for p in $pids; do taskset -a -c -p 0 $p >/dev/null 2>&1; done
         cd /sys/kernel/tracing || exit 1
         echo nop >current_tracer
         echo 1 >tracing_cpumask
         echo 0 >options/funcgraph-irqs
         echo function_graph >current_tracer
         echo >trace
         echo 1 >tracing_on
         echo armed
         read line
         echo 0 >tracing_on
         grep -E '^(entries|overrun):' per_cpu/cpu0/stats
         sed -n 's/.*[|] *\\([A-Za-z_][A-Za-z0-9_.]*\\)().*/function: \\1/p' per_cpu/cpu0/trace | sort -u
         echo nop >current_tracer"
    );
    let run = || load(parts, spec, spec.load.requests);
    let (failed, said) = vm.script_while(&script, TIMEOUT, run)?;
    let failed = failed?;
    let trace = parse(&said).ok_or_else(|| format!("the trace was not understood: {said}"))?;
    Ok((trace, failed))
}

/// Unique functions, events that were kept and events that were overwritten.
fn parse(said: &str) -> Option<(u64, u64, u64)> {
    let number = |name: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let functions = said.lines().filter(|l| l.starts_with("function: ")).count();
    Some((functions as u64, number("entries:")?, number("overrun:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_losses_are_read_from_what_the_script_says() {
        let said = "armed\nentries: 12\noverrun: 3456\nfunction: vfs_read\nfunction: vfs_write\n";
        assert_eq!(parse(said), Some((2, 12, 3456)));
        assert_eq!(parse("function: vfs_read\n"), None);
    }
}
