//! One lab, one load, both instruments: first the exact one alone, then the live one on the running
//! service; the names of everything that either saw.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use altaz::compare::images;
use altaz::compare::session::{Parts, Session};
use altaz::load::{ReadyCheck, ServiceLoad, wait_ready};
use altaz_collect::exact::build::{self, Built};
use altaz_collect::exact::naming::{CodeImage, KernelCode, Names, Sources, VDSO};
use altaz_collect::exact::recording::Purpose;
use altaz_deploy::{LoadKind, ServiceSpec, deployments};
use altaz_e2e::During;
use altaz_e2e::lab::start;
use altaz_e2e::live::record_until_told;
use altaz_lab::{LabVm, NetNs, places};
use altaz_profile::rules::{LayerRules, Origin};
use altaz_profile::{Layer, Phase, Profile};
use altaz_symbols::Kallsyms;

use crate::Result;
use crate::lab::{ALTAZ, CGROUP, TIMEOUT, profile};

/// Time that the lab is given to become quiet after boot, and length of the idle baseline.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE_WINDOWS: u32 = 20;
/// Requests before anything counts: what a service does once is not what it does for each.
const WARM_UP: u64 = 20;
const ADDRESS: IpAddr = IpAddr::V4(places::SERVICE_ADDRESS);

/// A function of the kernel: binary (`kernel` or `[module]`) and offset, as units have them.
pub type Key = (Arc<str>, u64);

/// The functions that the kernel's tracer can see.
#[derive(Debug, Default)]
pub struct Traceable {
    /// Their numbers in the kernel's list, from 1.
    pub index: BTreeMap<Key, u32>,
    /// Functions by the name that the kernel's tracer prints.
    by_name: BTreeMap<String, Vec<Key>>,
}

/// Both recordings of a service.
pub struct Observed {
    /// The exact instrument's, alone.
    pub exact: Built,
    /// The same a second time, after the live ones: what the load does each time.
    pub again: Built,
    /// What it saw while the live one recorded.
    pub beside: Built,
    /// What it saw while the live one recorded userland, too.
    pub beside_userland: Built,
    /// The live one's.
    pub live: Profile,
    /// Another, with userland functions.
    pub userland: Profile,
    /// What the live one can see at all.
    pub traceable: Traceable,
    /// Where the kernel functions that only the exact one has were entered, in the whole machine.
    pub watched: BTreeMap<Key, BTreeSet<During>>,
}

/// A service and the lab's parts.
pub struct Observation<'a> {
    /// The lab's parts.
    pub parts: &'a Parts<'a>,
    /// The service.
    pub spec: &'a ServiceSpec,
    /// altaz.
    pub altaz: &'a Path,
    /// Length of each recording.
    pub time: Duration,
}

/// How much load.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// So many requests.
    Requests(u64),
    /// As the spec has it, for so long.
    For(Duration),
}

impl Observation<'_> {
    /// Boots and records.
    pub fn run(&self) -> Result<Observed> {
        let mut session = Session::boot(self.parts, Vec::new())?;
        session.vm.put_file(ALTAZ, 0o755, &std::fs::read(self.altaz)?)?;
        self.idle(&mut session)?;
        self.start(&mut session)?;
        self.say("recording with the exact instrument alone");
        self.load(&mut session, Phase::Start, Load::Requests(WARM_UP))?;
        self.load(&mut session, Phase::Serve, Load::For(self.time))?;
        session.close(Purpose::Aside)?;
        let first = session.recording.windows.len();
        self.say("recording with the live instrument");
        let live = self.record(&session.vm, "")?;
        // What ran until here ran beside the live recording: a window of its own. So with the next.
        session.close(Purpose::Aside)?;
        let beside = session.recording.windows.len() - 1;
        self.say("recording with the live instrument, userland too");
        let userland = self.record(&session.vm, "--userland")?;
        session.close(Purpose::Aside)?;
        let beside_userland = session.recording.windows.len() - 1;
        self.say("recording with the exact instrument alone, a second time");
        self.load(&mut session, Phase::Serve, Load::For(self.time))?;
        session.close(Purpose::Aside)?;

        self.say("naming");
        let kallsyms = session.vm.kallsyms()?;
        let kallsyms = Kallsyms::parse(&String::from_utf8_lossy(&kallsyms))?;
        let vdso = session.vm.vdso()?;
        let traceable = Traceable::read(&session.vm, &kallsyms)?;
        // Named once for each span: its windows serve, the others are left aside.
        let purposes: Vec<Purpose> = session.recording.windows.iter().map(|w| w.purpose).collect();
        let mut with = |purpose: &dyn Fn(usize, &Purpose) -> Purpose| {
            for (i, window) in session.recording.windows.iter_mut().enumerate() {
                window.purpose = purpose(i, &purposes[i]);
            }
            self.name(&session, &kallsyms, &vdso)
        };
        let serves = |p: &Purpose| matches!(p, Purpose::Phase(Phase::Serve));
        let exact = with(&|i, p| if serves(p) && i >= first { Purpose::Aside } else { *p })?;
        let again = with(&|i, p| if serves(p) && i < first { Purpose::Aside } else { *p })?;
        let only = |window: usize| {
            move |i: usize, _: &Purpose| match i == window {
                true => Purpose::Phase(Phase::Serve),
                false => Purpose::Aside,
            }
        };
        let (beside, beside_userland) = (with(&only(beside))?, with(&only(beside_userland))?);

        self.say("looking where the rest was entered");
        let seen: BTreeSet<Key> = live_keys(&live).collect();
        let rest: Vec<&Key> = traceable
            .index
            .keys()
            .filter(|key| !seen.contains(*key) && kernel_keys(&exact).any(|(k, _)| k == **key))
            .collect();
        let watched = self.watch(&session.vm, &traceable, &rest)?;
        let (_, off) = session.finish();
        off?;
        Ok(Observed { exact, again, beside, beside_userland, live, userland, traceable, watched })
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.spec.name);
    }

    fn idle(&self, session: &mut Session<'_>) -> Result<()> {
        std::thread::sleep(SETTLE);
        session.close(Purpose::Aside)?;
        for n in 0..IDLE_WINDOWS {
            // The code of altaz's own channel is part of the baseline.
            if n % 2 == 1 {
                session.vm.calibrate(0)?;
            }
            session.window(Phase::Idle)?;
        }
        Ok(())
    }

    fn start(&self, session: &mut Session<'_>) -> Result<()> {
        self.say("starting the service");
        session.close(Purpose::Aside)?;
        session.windows_during(Phase::Start, |vm| start(vm, self.spec, "process", TIMEOUT))??;
        let check = ReadyCheck::of(self.spec, ADDRESS);
        let ready = in_netns(self.parts.netns, move || wait_ready(&check, &|| None));
        std::thread::scope(|scope| {
            session.windows_while(Phase::Start, scope.spawn(ready), |_| Ok(()))
        })???;
        Ok(())
    }

    /// Load from outside while windows are taken.
    fn load(&self, session: &mut Session<'_>, phase: Phase, load: Load) -> Result<()> {
        session.close(Purpose::Aside)?;
        let run = self.requests(load);
        std::thread::scope(|scope| session.windows_while(phase, scope.spawn(run), |_| Ok(())))?
    }

    /// The service's own load, to be run in a thread.
    fn requests(&self, load: Load) -> impl FnOnce() -> Result<()> + Send + use<> {
        let (requests, time) = match load {
            Load::Requests(n) => (n, Duration::ZERO),
            Load::For(time) => (self.spec.load.requests, time),
        };
        let load = match &self.spec.load.kind {
            // A constant rate: as many as fit.
            LoadKind::Http(http) if !time.is_zero() => {
                ServiceLoad::new(self.spec, ADDRESS, (time.as_secs_f64() * http.rate) as u64, None)
            }
            _ => ServiceLoad::new(self.spec, ADDRESS, requests, None),
        };
        let netns = self.parts.netns.clone();
        move || {
            let begin = Instant::now();
            netns.enter()?;
            loop {
                let report = load.run(&|| None, &|_| ())?;
                if report.error_count() > 0 {
                    return Err(format!("requests failed: {:?}", report.error_summary()).into());
                }
                // A command is run again until the time is over.
                if begin.elapsed() + Duration::from_secs(1) >= time {
                    return Ok(());
                }
            }
        }
    }

    /// A live recording of the service under its load.
    fn record(&self, vm: &LabVm, flags: &str) -> Result<Profile> {
        // Nobody asks the service anything until all functions are armed. A recording that does not
        // come so far says so in its blind spots, and is compared as it is.
        let what = format!("--cgroup {CGROUP}/altaz-process {flags}");
        let script = record_until_told(ALTAZ, &what, 200);
        let run = self.requests(Load::For(self.time));
        let run = || std::thread::spawn(run).join().map_err(|_| "a thread died")?;
        let (loaded, said) = vm.script_while(&script, TIMEOUT, run)?;
        loaded?;
        eprint!("{said}");
        profile(vm, "/tmp/live.altaz")
    }

    fn name(&self, session: &Session<'_>, kallsyms: &Kallsyms, vdso: &[u8]) -> Result<Built> {
        let deployment = deployments::by_name("process").ok_or("no deployment process")?;
        let description = deployment.describe(self.spec);
        let vdso_index = images::single(VDSO, vdso);
        let vdso = vdso.to_vec();
        let vdso = CodeImage {
            origin: Origin::Service,
            index: &vdso_index,
            read: Box::new(move |_: &altaz_symbols::ImageFile| Ok(vdso.clone())),
        };
        let agent = altaz_lab::AgentFile::find()?;
        let agent_index = images::single(places::AGENT, &agent.bytes);
        let agent = CodeImage {
            origin: Origin::Host,
            index: &agent_index,
            read: Box::new(move |_: &altaz_symbols::ImageFile| Ok(agent.bytes.clone())),
        };
        let sources = Sources {
            images: self
                .parts
                .service_code
                .iter()
                .map(|code| code.as_source(Origin::Service))
                .chain([self.parts.lab_code.as_source(Origin::Host), agent, vdso])
                .collect(),
            kernel: KernelCode { kallsyms: kallsyms.clone(), build_id: None, source: None },
            guest_kernel: None,
            kernel_program: None,
            rules: LayerRules::compile(&description.rules)?,
            roles: Vec::new(),
            host_prefers: Origin::Service,
        };
        let mut names = Names::new(&session.recording, sources)?;
        Ok(build::build(&session.recording, &mut names))
    }

    /// Where these functions are entered in the whole machine while the service answers requests.
    fn watch(
        &self,
        vm: &LabVm,
        traceable: &Traceable,
        keys: &[&Key],
    ) -> Result<BTreeMap<Key, BTreeSet<During>>> {
        let mut watched: BTreeMap<Key, BTreeSet<During>> = BTreeMap::new();
        if keys.is_empty() {
            return Ok(watched);
        }
        let list: Vec<String> =
            keys.iter().filter_map(|k| Some(traceable.index.get(*k)?.to_string())).collect();
        vm.put_file("/tmp/indexes", 0o644, list.join("\n").as_bytes())?;
        let run = self.requests(Load::For(self.time));
        let watch = || std::thread::spawn(run).join().map_err(|_| "a thread died")?;
        let (loaded, text) = vm.script_while(&watch_script(), TIMEOUT, watch)?;
        loaded?;
        let mut kernel_threads = BTreeSet::new();
        let mut service = BTreeSet::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match *words.as_slice() {
                ["kernel-thread", pid] => {
                    kernel_threads.insert(pid.trim().to_owned());
                }
                ["service", comm] => {
                    service.insert(comm.to_owned());
                }
                ["seen", comm, pid, context, function] => {
                    let during = match context {
                        "h" | "H" | "z" | "Z" => During::Interrupt,
                        "s" => During::Softirq,
                        _ if service.contains(comm) => During::Service,
                        _ if pid == "0" => During::Idle,
                        _ if kernel_threads.contains(pid) => During::KernelThread,
                        _ => During::OtherTask,
                    };
                    for key in traceable.by_name.get(function).into_iter().flatten() {
                        watched.entry(key.clone()).or_default().insert(during);
                    }
                }
                _ => return Err(format!("the lab wrote {line:?}").into()),
            }
        }
        Ok(watched)
    }
}

/// Traces the functions of `/tmp/indexes` in the whole machine. The kernel takes one index a write.
fn watch_script() -> String {
    format!(
        r#"
        cd /sys/kernel/tracing/instances
        mkdir validate
        cd validate
        echo 50000 > buffer_size_kb
        while read index || [ -n "$index" ]; do echo $index; done < /tmp/indexes > set_ftrace_filter
        echo function > current_tracer
        echo armed
        read line
        echo 0 > tracing_on
        for pid in $(ps -o pid= --ppid 2); do printf 'kernel-thread\t%s\n' $pid; done
        for task in $(cat {CGROUP}/altaz-process/cgroup.threads); do
            comm=$(cat /proc/$task/comm) && printf 'service\t%s\n' "$comm"
        done | sort -u
        awk '
            /^#/ {{ next }}
            match($0, /-[0-9]+ +\[[0-9]+\] /) {{
                comm = substr($0, 1, RSTART - 1)
                sub(/^ +/, "", comm)
                pid = substr($0, RSTART + 1) + 0
                split(substr($0, RSTART + RLENGTH), field)
                sub(/:$/, "", field[2])
                seen[comm "\t" pid "\t" substr(field[1], 3, 1) "\t" field[3]]++
            }}
            END {{ for (what in seen) print "seen\t" what }}' trace
        echo nop > current_tracer
        cd ..
        rmdir validate"#
    )
}

impl Traceable {
    fn read(vm: &LabVm, kallsyms: &Kallsyms) -> Result<Self> {
        let text =
            vm.script("cat /sys/kernel/tracing/available_filter_functions_addrs", TIMEOUT)?;
        let mut this = Self::default();
        for (line, index) in text.lines().zip(1..) {
            let mut words = line.split_whitespace();
            let address = words.next().and_then(|a| u64::from_str_radix(a, 16).ok());
            let (Some(address), Some(name)) = (address, words.next()) else {
                return Err(format!("the kernel lists {line:?} as a function").into());
            };
            let Some(found) = kallsyms.lookup(address) else { continue };
            let key = key_of(&found);
            this.by_name.entry(name.to_owned()).or_default().push(key.clone());
            this.index.insert(key, index);
        }
        Ok(this)
    }
}

fn key_of(found: &altaz_symbols::KernelFunction<'_>) -> Key {
    let binary = match found.module {
        Some(module) => format!("[{module}]").into(),
        None => altaz_collect::exact::naming::KERNEL.into(),
    };
    (binary, found.offset_from_base)
}

/// Kernel functions of the exact recording's serve phase, with their rows.
pub fn kernel_keys(built: &Built) -> impl Iterator<Item = (Key, &altaz_profile::Unit)> {
    let rows = built.units.iter();
    rows.filter(|u| u.layer == Layer::HostKernel && u.phase == Phase::Serve)
        .map(|u| ((Arc::clone(&u.binary), u.offset), u))
}

/// Kernel functions of a live recording, in any context.
pub fn live_keys(profile: &Profile) -> impl Iterator<Item = Key> {
    let rows = profile.units.iter().filter(|u| u.layer == Layer::HostKernel);
    rows.map(|u| (Arc::clone(&u.binary), u.offset))
}

/// `f` in the lab's network.
fn in_netns<T: Send + 'static>(
    netns: &NetNs,
    f: impl FnOnce() -> T + Send + 'static,
) -> impl FnOnce() -> std::io::Result<T> + Send + 'static {
    let netns = netns.clone();
    move || {
        netns.enter()?;
        Ok(f())
    }
}
