//! A lab with a service under steady load, and how fast it is.
//!
//! The load never pauses: a slice is the difference of two readings of a counter. Nothing here knows
//! who watches the service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use altaz::load::{LoadReport, ReadyCheck, ServiceLoad, wait_ready};
use altaz_deploy::ServiceSpec;
use altaz_lab::protocol::RequestBody;
use altaz_lab::qemu::Accel;
use altaz_lab::{BootOptions, InputFile, LabImage, LabVm, NetNs, ServiceImage, places};
use anyhow::{Context, Result, anyhow, bail, ensure};

/// No script of the lab takes longer, and nothing is measured for longer.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(1200));
/// Where altaz is in the lab.
pub const ALTAZ: &str = "/usr/local/bin/altaz";
/// Connections to the web service: it has two workers.
const WEB_CONNECTIONS: u32 = 2;

/// How fast a service was in a slice of time.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Requests answered in a second in which the lab had its processors: the time that they waited
    /// for a processor of the host is left out, as a hypervisor's steal time.
    pub per_s: f64,
    /// Requests answered in a second of the clock.
    pub wall_per_s: f64,
    /// Share of the time in which the lab's processors wanted to run and had to wait.
    pub stolen: f64,
    /// Processor time of the whole lab for a request, µs.
    pub cpu_us: f64,
}

/// Whether one thread of the host executes the lab's processors in turn, which is usual: tracers patch functions that
/// both processors execute at full speed, and with a thread for each QEMU now and then executes a breakpoint that was
/// taken out of the text already, which is the end of the lab's kernel.
pub fn in_turn() -> bool {
    std::env::var("ALTAZ_BENCH_OVERHEAD_THREADS").as_deref() != Ok("multi")
}

/// The lab.
pub struct Lab {
    vm: LabVm,
}

impl Lab {
    /// Boots it with altaz in it.
    pub fn boot(image: &LabImage, service: &ServiceImage, altaz: &Path) -> Result<Self> {
        let netns = NetNs::new()?;
        let mut options = BootOptions::new(&netns);
        options.service_image = Some(service);
        if in_turn() {
            options.accel = Accel::TcgInTurn;
        }
        options.input_files = vec![InputFile::host(ALTAZ, 0o755, altaz)];
        Ok(Self { vm: LabVm::boot(image, options).context("booting the lab")? })
    }

    /// Runs a script to its end and returns what it writes.
    pub fn sh(&self, script: &str) -> Result<String> {
        Ok(self.vm.script(script, TIMEOUT)?)
    }

    /// Runs a script; when it says `armed`, `then` is done, and after it the script gets a line of
    /// input. Returns what `then` returned and the script wrote.
    pub fn armed<T: Send>(
        &self,
        script: &str,
        then: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(T, String)> {
        let (value, text) = self.vm.script_while(script, TIMEOUT, then)?;
        Ok((value?, text))
    }

    /// A file of the lab.
    pub fn file(&self, path: &str) -> Result<Vec<u8>> {
        Ok(self.vm.get_file(path)?)
    }

    /// Starts redis on one processor and its benchmark, 50 clients at full speed, on the other.
    pub fn redis(&self) -> Result<Service<'_>> {
        self.sh(&format!(
            "taskset -c 0 redis-server --save '' --appendonly no --daemonize yes >/dev/null
             for i in $(seq 100); do redis-cli ping >/dev/null 2>&1 && break; sleep 0.1; done
             redis-cli ping >/dev/null
             taskset -c 1 redis-benchmark -t set -P 1 -c 50 -n 2000000000 -q >/tmp/load 2>&1 </dev/null &
             cat >/tmp/sample <<'END'
{SAMPLE}
END
             setsid bash /tmp/sample >/dev/null 2>&1 </dev/null &
             for i in $(seq 200); do [ -s {SAMPLES} ] && exit 0; sleep 0.1; done
             cat /tmp/load >&2; exit 1"
        ))?;
        let tasks = "$(ls /proc/$(pgrep -x redis-server)/task)".to_owned();
        Ok(Service {
            lab: self,
            name: "redis",
            tasks,
            target: "-p $(pgrep -x redis-server)".into(),
            load: Load::Redis,
        })
    }

    /// Starts a service of a spec as plain processes and asks it from outside, each connection its
    /// next request as soon as the last one is answered.
    pub fn web(&self, spec: &ServiceSpec) -> Result<Service<'_>> {
        let body = RequestBody::DeployStart {
            deployment: "process".into(),
            spec: serde_json::to_value(spec)?,
        };
        self.vm.call("start the service", body, &[], TIMEOUT)?;
        let address = IpAddr::V4(places::SERVICE_ADDRESS);
        let check = ReadyCheck::of(spec, address);
        let ready = move || wait_ready(&check, &|| None);
        let ready = self.vm.netns().spawn_thread("ready", ready)?;
        ready.join().map_err(|_| anyhow!("a thread died"))?.context("the lab's network")??;
        // A rate that no lab reaches: every request is overdue.
        let mut load = ServiceLoad::new(spec, address, u64::MAX, Some(1e6));
        let ServiceLoad::Http(http) = &mut load else { bail!("the spec's load is not HTTP") };
        http.connections = WEB_CONNECTIONS;
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&done), Arc::clone(&stop));
        let run = move || {
            let abort = || stopped.load(Ordering::SeqCst).then(|| "stopped".to_owned());
            load.run(&abort, &|progress| counter.store(progress.done, Ordering::SeqCst))
        };
        let thread = self.vm.netns().spawn_thread("load", run)?;
        let group = "/sys/fs/cgroup/altaz-process";
        Ok(Service {
            lab: self,
            name: "web",
            tasks: format!("$(cat {group}/cgroup.threads)"),
            target: format!("--cgroup {group}"),
            load: Load::Http { done, stop, thread: Some(thread) },
        })
    }

    /// Ends the lab.
    pub fn poweroff(self) -> Result<()> {
        Ok(self.vm.poweroff()?)
    }
}

/// Where redis's own count of SETs stands, a line with its clock in µs twice a second.
const SAMPLES: &str = "/tmp/samples";
/// Writes it without starting a program: while a library is probed, a program that starts pays for having thousands
/// of probes put into its copy, which is not what the service pays.
const SAMPLE: &str = r#"exec 3<>/dev/tcp/127.0.0.1/6379
exec 4<> <(:)
while printf 'INFO server\r\nINFO commandstats\r\n' >&3; do
    while IFS= read -r -t 20 -u 3 line; do
        case $line in
            server_time_usec:*) us=${line#*:} ;;
            cmdstat_set:calls=*) calls=${line#*=}; break ;;
        esac
    done
    printf '%s %s\n' "${us%$'\r'}" "${calls%%,*}" >>/tmp/samples
    read -t 0.5 -u 4
done"#;

/// altaz is waited for so long.
const ARMED: Duration = Duration::from_secs(330);

/// Time in which what became hot when the load went on is seen in three windows and disarmed.
pub const DISARM: Duration = Duration::from_secs(10);
/// The same with userland functions: a file's probes are linked anew in seconds here, one file after the other.
pub const DISARM_USERLAND: Duration = Duration::from_secs(90);

/// Time in which code that was patched is translated anew, and altaz notices what happened meanwhile.
const SETTLE: Duration = Duration::from_secs(1);

type Running = JoinHandle<std::io::Result<Result<LoadReport, String>>>;

enum Load {
    /// Redis counts itself; its benchmark runs in the lab.
    Redis,
    Http {
        done: Arc<AtomicU64>,
        stop: Arc<AtomicBool>,
        thread: Option<Running>,
    },
}

/// A service under load.
pub struct Service<'a> {
    lab: &'a Lab,
    /// Its name in the results.
    pub name: &'static str,
    /// Shell words that stand for the ids of its tasks.
    pub tasks: String,
    /// What altaz is pointed at, as shell words.
    pub target: String,
    load: Load,
}

impl<'a> Service<'a> {
    /// The lab in which it runs.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    fn read(&self) -> Result<Reading> {
        let threads = threads(self.lab.vm.pid())?;
        let (requests, seconds) = match &self.load {
            Load::Redis => {
                let bytes = self.lab.file(SAMPLES)?;
                let text = String::from_utf8_lossy(&bytes);
                // The last line may be half written.
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                let last = whole.rsplit('\n').next().unwrap_or_default();
                let value = |s: Option<&str>| -> Option<f64> { s?.parse().ok() };
                let (us, calls) = last.split_once(' ').unzip();
                let us = value(us).with_context(|| format!("no sample in {last:?}"))?;
                (value(calls).with_context(|| format!("no sample in {last:?}"))?, us / 1e6)
            }
            Load::Http { done, .. } => (done.load(Ordering::SeqCst) as f64, seconds()),
        };
        Ok(Reading { requests, seconds, threads })
    }

    /// How fast it is for some time.
    pub fn speed(&self, time: Duration) -> Result<Speed> {
        self.speed_while(|| {
            std::thread::sleep(time);
            Ok(())
        })
    }

    /// Waits until altaz says that everything is armed, and some seconds more in which it disarms
    /// what it sees. Where the load can be halted it is, meanwhile: on an idle machine arming takes
    /// seconds, on a busy one minutes, and the outcome is the same. False when it is still arming after [`ARMED`]: what
    /// is measured then is not its cost after convergence but more.
    pub fn until_armed(&self, disarm: Duration) -> Result<bool> {
        self.halt("STOP")?;
        let armed = self.wait_for_armed();
        self.halt("CONT")?;
        std::thread::sleep(disarm);
        Ok(armed)
    }

    /// Reads what altaz says without starting a program in the lab.
    fn wait_for_armed(&self) -> bool {
        let begin = Instant::now();
        loop {
            let said = self.lab.file("/tmp/altaz.err").unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if said.contains("everything is armed") {
                return true;
            }
            if begin.elapsed() >= ARMED {
                eprintln!(
                    "{} is still being armed after {} s; altaz says: {said}",
                    self.name,
                    ARMED.as_secs()
                );
                return false;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// How fast it is while altaz is halted and the kernel has taken every breakpoint of the function tracer out of
    /// its text, as if nobody watched. Goes on watching afterwards.
    pub fn speed_in_pause(&self, time: Duration) -> Result<Speed> {
        self.halt("STOP")?;
        self.lab.sh("kill -STOP $(pgrep -x altaz)
             echo 0 >/proc/sys/kernel/ftrace_enabled
             [ $(wc -l </sys/kernel/tracing/enabled_functions) = 0 ]")?;
        self.halt("CONT")?;
        std::thread::sleep(SETTLE);
        let speed = self.speed(time)?;
        self.halt("STOP")?;
        self.lab.sh("echo 1 >/proc/sys/kernel/ftrace_enabled
             [ $(wc -l </sys/kernel/tracing/enabled_functions) -gt 1000 ]
             kill -CONT $(pgrep -x altaz)")?;
        self.halt("CONT")?;
        std::thread::sleep(SETTLE);
        Ok(speed)
    }

    fn halt(&self, signal: &str) -> Result<()> {
        match self.load {
            Load::Redis => {
                self.lab.sh(&format!("kill -{signal} $(pgrep -x redis-benchmark)")).map(drop)
            }
            // Its requests come from outside; it leaves half of the machine idle.
            Load::Http { .. } => Ok(()),
        }
    }

    /// How fast it is while something is done.
    pub fn speed_while(&self, f: impl FnOnce() -> Result<()>) -> Result<Speed> {
        let before = self.read()?;
        f()?;
        let after = self.read()?;
        let requests = after.requests - before.requests;
        ensure!(requests > 0.0, "{} answers no requests any more", self.name);
        let (mut ran, mut waited) = (0.0, 0.0);
        for (tid, (run, wait)) in &after.threads {
            let (run_before, wait_before) = before.threads.get(tid).copied().unwrap_or((0, 0));
            ran += run.saturating_sub(run_before) as f64 / 1e9;
            waited += wait.saturating_sub(wait_before) as f64 / 1e9;
        }
        let stolen = waited / (ran + waited).max(1e-9);
        let wall_per_s = requests / (after.seconds - before.seconds);
        let per_s = wall_per_s / (1.0 - stolen);
        Ok(Speed { per_s, wall_per_s, stolen, cpu_us: ran / requests * 1e6 })
    }

    /// Ends the load and the service; fails when a request did.
    pub fn stop(mut self) -> Result<()> {
        match &mut self.load {
            Load::Redis => {
                let text =
                    self.lab.sh("redis-cli info stats; pgrep -x redis-benchmark >/dev/null")?;
                ensure!(text.contains("total_error_replies:0"), "redis refused commands: {text}");
                self.lab.sh("kill $(pgrep -x redis-benchmark); redis-cli shutdown nosave").map(drop)
            }
            Load::Http { stop, thread, .. } => {
                stop.store(true, Ordering::SeqCst);
                let thread = thread.take().context("stopped once")?;
                let report = thread.join().map_err(|_| anyhow!("the load's thread died"))?;
                let report = report.context("the lab's network")?.map_err(|e| anyhow!(e))?;
                ensure!(report.error_count() == 0, "requests failed: {:?}", report.error_summary());
                self.lab.vm.call("stop the service", RequestBody::DeployStop, &[], TIMEOUT)?;
                Ok(())
            }
        }
    }
}

/// Seconds of this program's clock.
pub fn seconds() -> f64 {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    Instant::now().duration_since(*BEGIN).as_secs_f64()
}

/// State of a service and of the lab at a moment.
struct Reading {
    /// Requests answered so far.
    requests: f64,
    /// The clock that goes with them.
    seconds: f64,
    /// ns that each thread of QEMU has run, and waited for a processor of the host.
    threads: BTreeMap<u32, (u64, u64)>,
}

/// ns that each thread of a process has run and waited, from `/proc/PID/task/TID/schedstat`.
fn threads(pid: u32) -> Result<BTreeMap<u32, (u64, u64)>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may end meanwhile.
        let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let mut words = text.split_whitespace().map(str::parse);
        let (Some(Ok(run)), Some(Ok(wait))) = (words.next(), words.next()) else {
            bail!("the host's kernel does not say how long threads ran (CONFIG_SCHED_INFO)");
        };
        if let Some(tid) = entry.file_name().to_str().and_then(|t| t.parse().ok()) {
            threads.insert(tid, (run, wait));
        }
    }
    Ok(threads)
}
