//! Counts of boundary crossings against those of the tools that everybody has: system calls against
//! `strace -c`, VM exits against `perf stat`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use altaz::load::{ReadyCheck, ServiceLoad, wait_ready};
use altaz_deploy::ServiceSpec;
use altaz_e2e::lab::start;
use altaz_lab::{BootOptions, InputFile, LabImage, LabVm, NetNs, ServiceImage, places};
use altaz_profile::Profile;

use crate::Result;
use crate::lab::{ALTAZ, CGROUP, TIMEOUT, profile};

/// A program that makes the same system calls each time: files, pipes, processes.
const WORKLOAD: &str = r#"i=0
while [ $i -lt 12 ]; do
    dd if=/dev/zero of=/tmp/workload bs=64 count=400 2>/dev/null
    sort /tmp/list | uniq | wc -l >/dev/null
    cat /tmp/list /tmp/list /etc/passwd >/dev/null
    ls -lR /etc/redis /etc/init.d >/dev/null
    i=$((i + 1))
done"#;

/// Calls that do not return: strace counts returns.
const NO_RETURN: [&str; 2] = ["exit", "exit_group"];

/// A count by altaz and by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is counted.
    pub what: String,
    /// By altaz.
    pub altaz: u64,
    /// By the other.
    pub other: u64,
}

impl Pair {
    /// How far altaz is off, as a share of the other's count.
    pub fn off(&self) -> Option<f64> {
        (self.other > 0).then(|| (self.altaz as f64 - self.other as f64).abs() / self.other as f64)
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// System calls by name against `strace -c`, those that never return left out.
    pub strace: Vec<Pair>,
    /// The same against `perf trace -s`.
    pub perf_trace: Vec<Pair>,
    /// VM exits by event.
    pub exits: Vec<Pair>,
}

/// Sum of pairs.
pub fn total(pairs: &[Pair], what: &str) -> Pair {
    let sum = |f: fn(&Pair) -> u64| pairs.iter().map(f).sum();
    Pair { what: what.into(), altaz: sum(|p| p.altaz), other: sum(|p| p.other) }
}

/// Boots a lab without the exact instrument and counts.
pub fn run(
    lab: &LabImage,
    service: &ServiceImage,
    spec: &ServiceSpec,
    altaz: &Path,
    requests: u64,
) -> Result<Counts> {
    let netns = NetNs::new()?;
    let mut options = BootOptions::new(&netns);
    options.service_image = Some(service);
    options.input_files = vec![InputFile::host(ALTAZ, 0o755, altaz)];
    let vm = LabVm::boot(lab, options)?;
    eprintln!("counting system calls");
    let (strace, perf_trace) = syscalls(&vm)?;
    eprintln!("counting VM exits");
    let exits = exits(&vm, spec, requests)?;
    vm.poweroff()?;
    Ok(Counts { strace, perf_trace, exits })
}

/// Against strace and against perf.
fn syscalls(vm: &LabVm) -> Result<(Vec<Pair>, Vec<Pair>)> {
    vm.put_file("/tmp/workload.sh", 0o755, WORKLOAD.as_bytes())?;
    vm.script("seq 1 300 > /tmp/list; sh /tmp/workload.sh", TIMEOUT)?;
    vm.script(
        &format!(
            "{ALTAZ} record --quiet -o /tmp/calls.altaz -- sh /tmp/workload.sh >/dev/null 2>/tmp/log </dev/null \
                 || [ $? = 4 ] || {{ cat /tmp/log >&2; exit 1; }}"
        ),
        TIMEOUT,
    )?;
    let text = vm.script(
        "strace -c -f -o /tmp/strace sh /tmp/workload.sh </dev/null; cat /tmp/strace",
        TIMEOUT,
    )?;
    let strace = strace_table(&text);
    let text = vm.script(
        "perf trace -s -m 8M -o /tmp/perf-trace sh /tmp/workload.sh </dev/null; cat /tmp/perf-trace",
        TIMEOUT,
    )?;
    let perf_trace = perf_trace_table(&text);
    if perf_trace.is_empty() {
        return Err(format!("perf trace counted nothing: {text}").into());
    }
    let altaz = entries(&profile(vm, "/tmp/calls.altaz")?, "syscall");
    let against = |other: &BTreeMap<String, u64>| {
        pairs(&altaz, other).filter(|p| !NO_RETURN.contains(&p.what.as_str())).collect()
    };
    Ok((against(&strace), against(&perf_trace)))
}

fn pairs(
    altaz: &BTreeMap<String, u64>,
    other: &BTreeMap<String, u64>,
) -> impl Iterator<Item = Pair> {
    let names: BTreeSet<&String> = altaz.keys().chain(other.keys()).collect();
    let count = |of: &BTreeMap<String, u64>, name| of.get(name).copied().unwrap_or(0);
    let all: Vec<Pair> = names
        .into_iter()
        .map(|n| Pair { what: n.clone(), altaz: count(altaz, n), other: count(other, n) })
        .collect();
    all.into_iter()
}

/// Names and counts of a table that `strace -c` wrote.
fn strace_table(text: &str) -> BTreeMap<String, u64> {
    let rows = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, usecs/call, calls, perhaps errors, name.
        let (calls, name) = match *words.as_slice() {
            [_, _, _, calls, name] | [_, _, _, calls, _, name] => (calls, name),
            _ => return None,
        };
        (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
    });
    rows.collect()
}

/// Names and counts of the tables of threads that `perf trace -s` wrote, summed.
fn perf_trace_table(text: &str) -> BTreeMap<String, u64> {
    let mut table = BTreeMap::new();
    for line in text.lines() {
        // Name, calls, errors, total, min, avg, max in ms, stddev in per cent.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, calls, errors, _, _, _, _, deviation] = *words.as_slice()
            && deviation.ends_with('%')
            && let (Ok(calls), Ok(_)) = (calls.parse::<u64>(), errors.parse::<u64>())
        {
            *table.entry(name.to_owned()).or_default() += calls;
        }
    }
    table
}

/// Entry points of a boundary to the host, all of that name together.
fn entries(profile: &Profile, boundary: &str) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for b in profile.manifest.boundaries.iter().filter(|b| b.name == boundary) {
        for entry in &b.entries {
            *out.entry(entry.name.clone()).or_default() += entry.count;
        }
    }
    out
}

/// Events of KVM that are counted, and the boundary that altaz makes of each.
const EVENTS: [(&str, &str); 4] = [
    ("kvm:kvm_exit", "vm-exit"),
    ("kvm:kvm_pio", "port-io"),
    ("kvm:kvm_msr", "msr"),
    ("kvm:kvm_hypercall", "hypercall"),
];

fn exits(vm: &LabVm, spec: &ServiceSpec, requests: u64) -> Result<Vec<Pair>> {
    start(vm, spec, "qemu-microvm", TIMEOUT)?;
    let address = IpAddr::V4(places::SERVICE_ADDRESS);
    let check = ReadyCheck::of(spec, address);
    let ready = vm.netns().spawn_thread("ready", move || wait_ready(&check, &|| None))?;
    ready.join().map_err(|_| "a thread died")???;
    // The guest stands still while one counts and the other does not yet, or no longer.
    let script = format!(
        "guest=$(cat {CGROUP}/altaz-guest/cgroup.procs)
         kill -STOP $guest
         sleep 0.5
         perf stat -a -x, -e 'kvm:*' -o /tmp/perf </dev/null >/dev/null 2>&1 &
         perf=$!
         {ALTAZ} record --cgroup {CGROUP}/altaz-guest --duration 600s -o /tmp/exits.altaz \
             >/tmp/log 2>&1 </dev/null &
         altaz=$!
         until grep -q '^recording' /tmp/log; do
             kill -0 $altaz || {{ kill -CONT $guest; cat /tmp/log >&2; exit 1; }}
             sleep 0.2
         done
         sleep 2
         kill -CONT $guest
         echo armed
         read line
         kill -STOP $guest
         sleep 1
         kill -INT $altaz
         code=0
         wait $altaz || code=$?
         kill -INT $perf
         wait $perf || true
         kill -CONT $guest
         cat /tmp/perf
         [ $code = 0 ] || [ $code = 4 ] || [ $code = 130 ] || {{ cat /tmp/log >&2; exit 1; }}"
    );
    let load = ServiceLoad::new(spec, address, requests, None);
    let netns = vm.netns().clone();
    let (loaded, text) = vm.script_while(&script, TIMEOUT, move || -> Result<()> {
        let run = netns.spawn_thread("load", move || load.run(&|| None, &|_| ()))?;
        // The guest stood still: a request that its service gave up meanwhile is no matter here.
        let report = run.join().map_err(|_| "a thread died")???;
        match report.error_count() * 10 < report.sent {
            true => Ok(()),
            false => Err(format!("requests failed: {:?}", report.error_summary()).into()),
        }
    })?;
    loaded?;
    let perf = perf_table(&text);
    let profile = profile(vm, "/tmp/exits.altaz")?;
    let count = |(event, boundary): (&str, &str)| Pair {
        what: event.to_owned(),
        altaz: entries(&profile, boundary).values().sum(),
        other: perf.get(event).copied().unwrap_or(0),
    };
    Ok(EVENTS.map(count).into_iter().filter(|p| p.altaz + p.other > 0).collect())
}

/// Events and counts of what `perf stat -x,` wrote.
fn perf_table(text: &str) -> BTreeMap<String, u64> {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let count = fields.next()?.parse().ok()?;
        let event = fields.nth(1)?;
        Some((event.to_owned(), count))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 60.00    0.000600           3       200           read
 40.00    0.000400           2       150        12 openat
------ ----------- ----------- --------- --------- ------------------
100.00    0.001000           2       350        12 total
";
        let table = strace_table(text);
        assert_eq!(table, BTreeMap::from([("read".to_owned(), 200), ("openat".to_owned(), 150)]));
    }

    #[test]
    fn the_tables_of_perf_trace_are_added_up() {
        let text = "
 Summary of events:

 sh (120), 84 events, 97.7%

   syscall            calls  errors  total       min       avg       max       stddev
                                     (msec)    (msec)    (msec)    (msec)        (%)
   --------------- --------  ------ -------- --------- --------- ---------     ------
   wait4                  1      0     1.210     1.210     1.210     1.210      0.00%
   read                   9      2     0.031     0.003     0.004     0.006     10.90%

 dd (121), 8 events, 2.3%

   read                   4      0     0.012     0.003     0.003     0.003      1.00%
";
        let table = perf_trace_table(text);
        assert_eq!(table, BTreeMap::from([("read".to_owned(), 13), ("wait4".to_owned(), 1)]));
    }

    #[test]
    fn the_table_of_perf_is_read() {
        let text = "# started on Tue\n\n1503,,kvm:kvm_exit,61234,100.00,,\n<not counted>,,kvm:kvm_pio,0,0.00,,\n";
        assert_eq!(perf_table(text), BTreeMap::from([("kvm:kvm_exit".to_owned(), 1503)]));
    }

    #[test]
    fn a_count_is_off_by_its_share_of_the_others() {
        let pair = |altaz, other| Pair { what: String::new(), altaz, other };
        assert_eq!(pair(99, 100).off(), Some(0.01));
        assert_eq!(pair(1, 0).off(), None);
        assert_eq!(total(&[pair(1, 2), pair(3, 4)], "all").altaz, 4);
    }
}
