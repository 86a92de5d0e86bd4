//! Who watches the service: the scripts that arm each method in the lab, and what it lost.

use std::time::{Duration, Instant};

use altaz_profile::{Profile, file};
use altaz_testkit::tracing_stats;
use anyhow::{Context, Result, bail};

use super::lab::{ALTAZ, DISARM, DISARM_USERLAND, Service, Speed};

const TRACING: &str = "/sys/kernel/tracing";

/// A way to watch a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// altaz, kernel functions and boundaries.
    Altaz,
    /// altaz with userland functions.
    AltazUserland,
    /// The published method: function_graph in its default buffer, for these tasks.
    FunctionGraph,
    /// `trace-cmd record -p function`, for these tasks.
    TraceCmd,
    /// System calls, counted by bpftrace.
    Bpftrace,
    /// System calls, counted by strace.
    Strace,
}

impl Method {
    /// All, in the order of the first round.
    pub const ALL: [Self; 6] = [
        Self::Altaz,
        Self::FunctionGraph,
        Self::AltazUserland,
        Self::TraceCmd,
        Self::Bpftrace,
        Self::Strace,
    ];

    /// Its keys in the results begin with this.
    pub fn key(self) -> &'static str {
        match self {
            Self::Altaz => "altaz",
            Self::AltazUserland => "altaz_userland",
            Self::FunctionGraph => "function_graph",
            Self::TraceCmd => "trace_cmd",
            Self::Bpftrace => "bpftrace",
            Self::Strace => "strace",
        }
    }

    /// What it is, for a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Altaz => "`altaz record`",
            Self::AltazUserland => "`altaz record --userland`",
            Self::FunctionGraph => "function_graph, default buffer, `set_ftrace_pid`",
            Self::TraceCmd => "`trace-cmd record -p function -P …`",
            Self::Bpftrace => "`bpftrace`, system calls alone",
            Self::Strace => "`strace -c -f`, system calls alone",
        }
    }

    /// Whether it is altaz, whose cost changes while it runs.
    pub fn converges(self) -> bool {
        matches!(self, Self::Altaz | Self::AltazUserland)
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Slices with altaz converged, each between two in which it pauses.
    pub pairs: u32,
    /// A slice without altaz.
    pub slice: Duration,
    /// altaz from its start, averaged.
    pub average: Duration,
    /// altaz after that.
    pub converged: Duration,
}

/// A slice under altaz between two in which it paused.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// Converged.
    pub with: Speed,
    /// Nothing armed and altaz halted, before and after.
    pub without: (Speed, Speed),
}

/// What a method did to the service in one go.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Speed from the method's start; only altaz is measured from there.
    pub average: Option<Speed>,
    /// Speed while it watches, its start left out.
    pub armed: Speed,
    /// Slices with and without it in turn, where it can be paused.
    pub pairs: Vec<Pair>,
    /// Events that it recorded.
    pub events: u64,
    /// Events that it lost.
    pub lost: u64,
    /// Units that altaz saw for the first time while `armed` was measured.
    pub late: u64,
    /// Whether everything was armed before `armed` was measured; true of methods that arm all at once.
    pub all_armed: bool,
}

/// Watches a service with a method and measures it meanwhile.
pub fn watch(service: &Service<'_>, method: Method, times: &Times) -> Result<Watched> {
    let outcome = match method {
        Method::Altaz => with_altaz(service, "", Some(times.average), DISARM, times),
        // Probes in userland cannot be paused.
        Method::AltazUserland => {
            let times = Times { pairs: 0, ..*times };
            with_altaz(service, "--userland", None, DISARM_USERLAND, &times)
        }
        Method::FunctionGraph => others(service, times, &function_graph(&service.tasks)),
        Method::TraceCmd => others(service, times, &trace_cmd(&service.tasks)),
        Method::Bpftrace => others(service, times, BPFTRACE),
        Method::Strace => others(service, times, &strace(&service.tasks)),
    };
    outcome.with_context(|| format!("watching {} with {}", service.name, method.words()))
}

fn with_altaz(
    service: &Service<'_>,
    flags: &str,
    average: Option<Duration>,
    disarm: Duration,
    times: &Times,
) -> Result<Watched> {
    let script = format!(
        "rm -f /tmp/a.altaz
         echo armed
         {ALTAZ} record {target} {flags} -o /tmp/a.altaz 2>/tmp/altaz.err </dev/null &
         read line
         kill -INT $!
         code=0
         wait $! || code=$?
         cat /tmp/altaz.err >&2
         [ $code = 0 ] || [ $code = 4 ] || [ $code = 130 ]",
        target = service.target,
    );
    let ((average, armed, pairs, converged_at, all_armed), _) =
        service.lab().armed(&script, || {
            let begin = Instant::now();
            let average = average.map(|time| service.speed(time)).transpose()?;
            let all_armed = service.until_armed(disarm)?;
            let converged_at = begin.elapsed();
            // With pauses each slice of them is one more measurement of this.
            let time = if times.pairs > 0 { times.slice } else { times.converged };
            let armed = service.speed(time)?;
            let mut pairs = Vec::new();
            if times.pairs > 0 {
                let mut before = service.speed_in_pause(times.slice)?;
                for _ in 0..times.pairs {
                    let with = service.speed(times.slice)?;
                    let after = service.speed_in_pause(times.slice)?;
                    pairs.push(Pair { with, without: (before, after) });
                    before = after;
                }
            }
            Ok((average, armed, pairs, converged_at, all_armed))
        })?;
    let profile = profile(service)?;
    let windows = &profile.manifest.windows;
    let lost = windows.iter().map(|w| w.lost_events).sum();
    let begin_ns = converged_at.as_nanos() as u64;
    let late = |first: u32| windows.get(first as usize).is_some_and(|w| w.start_ns >= begin_ns);
    Ok(Watched {
        average,
        armed,
        pairs,
        events: profile.units.iter().map(|u| u.windows.len() as u64).sum(),
        lost,
        late: profile.units.iter().filter(|u| late(u.first_window)).count() as u64,
        all_armed,
    })
}

/// Lets altaz record for a moment, uncounted: an emulator translates a program's code when it runs for the first time,
/// which no machine does.
pub fn warm_up(service: &Service<'_>) -> Result<()> {
    let target = &service.target;
    let script =
        format!("{ALTAZ} record {target} --duration 5s -o /tmp/a.altaz 2>&1 || [ $? = 4 ]");
    service.lab().sh(&script).map(drop).context("a first recording")
}

fn profile(service: &Service<'_>) -> Result<Profile> {
    let bytes = service.lab().file("/tmp/a.altaz")?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("a.altaz");
    std::fs::write(&path, bytes)?;
    let profile = file::read(&path)?;
    if profile.units.is_empty() {
        bail!("altaz recorded nothing");
    }
    Ok(profile)
}

/// A method that says `armed`, gets a line, and ends with `events N` and `lost N`.
fn others(service: &Service<'_>, times: &Times, script: &str) -> Result<Watched> {
    let (armed, text) = service.lab().armed(script, || service.speed(times.slice))?;
    let number = |key: &str| -> Result<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        let value: f64 = line.with_context(|| format!("no {key:?} in {text:?}"))?.trim().parse()?;
        Ok(value as u64)
    };
    Ok(Watched {
        average: None,
        armed,
        pairs: Vec::new(),
        events: number("events")?,
        lost: number("lost")?,
        late: 0,
        all_armed: true,
    })
}

fn function_graph(tasks: &str) -> String {
    format!(
        "cd {TRACING}
         echo nop > current_tracer
         echo {tasks} > set_ftrace_pid
         echo 1 > options/function-fork
         echo function_graph > current_tracer
         echo 1 > tracing_on
         echo armed
         read line
         echo 0 > tracing_on
         {stats}
         echo nop > current_tracer
         echo > set_ftrace_pid
         echo 0 > options/function-fork
         echo > trace
         echo 1 > tracing_on
         sleep 1",
        stats = tracing_stats("."),
    )
}

fn trace_cmd(tasks: &str) -> String {
    format!(
        r#"pids=
         for t in {tasks}; do pids="$pids -P $t"; done
         trace-cmd record -p function $pids -o /tmp/trace.dat >/tmp/log 2>&1 </dev/null &
         tries=0
         until [ "$(cat {TRACING}/current_tracer) $(cat {TRACING}/tracing_on)" = "function 1" ]; do
             tries=$((tries + 1))
             [ $tries -lt 200 ] || {{ cat /tmp/log >&2; exit 1; }}
             sleep 0.1
         done
         echo armed
         read line
         {stats}
         kill -INT $!
         wait $! || true
         rm -f /tmp/trace.dat*
         sleep 1"#,
        stats = tracing_stats(TRACING),
    )
}

const BPFTRACE: &str = r#"
    bpftrace -e 'BEGIN { printf("begin\n"); } tracepoint:raw_syscalls:sys_enter { @[args.id] = count(); }' \
        >/tmp/log 2>&1 </dev/null &
    tries=0
    until grep -q begin /tmp/log; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { cat /tmp/log >&2; exit 1; }
        sleep 0.1
    done
    sleep 0.5
    echo armed
    read line
    kill -INT $!
    wait $! || true
    awk '/^@\[/ { n += $NF } /[Ll]ost/ { lost += $2 } END { printf "events %d\nlost %d\n", n, lost }' /tmp/log
    sleep 1"#;

fn strace(tasks: &str) -> String {
    format!(
        r#"pids=
         for t in {tasks}; do pids="$pids -p $t"; done
         strace -c -f $pids >/tmp/log 2>&1 </dev/null &
         tries=0
         until grep -q attached /tmp/log; do
             tries=$((tries + 1))
             [ $tries -lt 100 ] || {{ cat /tmp/log >&2; exit 1; }}
             sleep 0.1
         done
         sleep 0.5
         echo armed
         read line
         kill -INT $!
         wait $! || true
         awk '$NF == "total" {{ printf "events %d\nlost 0\n", $4 }}' /tmp/log
         sleep 1"#
    )
}
