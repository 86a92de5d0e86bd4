//! One recording of one deployment: a fresh lab from boot to power-off.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use altaz_collect::exact::build::{self, Built};
use altaz_collect::exact::naming::{CodeImage, KernelCode, Names, RoleRule, Sources};
use altaz_collect::exact::recording::{Purpose, Recording};
use altaz_deploy::boundary::Counts;
use altaz_deploy::traces::left_behind;
use altaz_deploy::{Deployment, Description, Load, ServiceSpec, seccomp};
use altaz_lab::ServiceImage;
use altaz_lab::protocol::RequestBody;
use altaz_profile::rules::{LayerRules, Origin};
use altaz_profile::{
    BlindSpot, Boundary, BoundaryEntry, Calibration, Host, Instrument, InstrumentKind, KindOfLoad,
    Layer, LayerWork, LoadSummary, Manifest, Phase, Profile, Reachable, SCHEMA,
};
use altaz_symbols::Kallsyms;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::images;
use super::kept::Wanted;
use super::session::{self, Parts, Session};
use crate::load::{self, LoadReport, NotReady, ReadyCheck, ServiceLoad, wait_ready};
use crate::ui::Ui;

/// Calls made for calibration.
const CALIBRATION_CALLS: u64 = 1000;
/// Time that the lab is given to become quiet after boot.
const SETTLE: Duration = Duration::from_secs(3);
/// Length of the idle baseline.
const IDLE: Duration = Duration::from_secs(10);
/// Requests before the serve phase, at most.
const WARM_UP_REQUESTS: u64 = 10;
/// Requests of the boundary run, at most.
const BOUNDARY_REQUESTS: u64 = 100;
/// How long the agent may take to start a deployment's processes.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(120);
/// Added to the service's own stop timeout.
const STOP_MARGIN: Duration = Duration::from_secs(90);
/// The service's address; the same in every deployment.
const SERVICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 10));

/// What is measured.
pub struct Measurement<'a> {
    /// The machine's parts.
    pub parts: &'a Parts<'a>,
    /// The service.
    pub spec: &'a ServiceSpec,
    /// How it runs.
    pub deployment: &'static dyn Deployment,
    /// Requests of each kind in the serve phase, when not the spec's.
    pub requests: Option<u64>,
    /// Requests per second, when not the spec's.
    pub rate: Option<f64>,
    /// Speaks to the user.
    pub ui: &'a Ui,
}

/// What was seen of the service from its start to its stop, besides what the instrument saw.
struct Served {
    ready: Duration,
    notes: Vec<String>,
    load: LoadReport,
    kinds: Vec<KindOfLoad>,
    crossings: Counts,
    /// Requests during which crossings were counted.
    crossing_requests: u64,
    reachable: Vec<Reachable>,
}

/// What was observed before naming.
struct Observed {
    recording: Recording,
    hello: altaz_lab::protocol::Hello,
    api_version: u32,
    served: Served,
    kallsyms: Vec<u8>,
    guest_kallsyms: Option<Vec<u8>>,
    vdso: Vec<u8>,
}

impl Measurement<'_> {
    /// Boots, measures and names.
    ///
    /// # Errors
    /// When the service does not start, get ready or survive, or the lab fails.
    pub fn run(&self) -> Result<Profile> {
        self.deployment.runs(self.spec)?;
        let recorded_at =
            humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let description = self.deployment.describe(self.spec);
        let observed = self.observe(&description)?;
        let step = self.ui.step("naming the code", None);
        let profile = self.name(&description, observed, recorded_at)?;
        step.done(&format!("{} units", profile.units.len()));
        Ok(profile)
    }

    fn observe(&self, description: &Description) -> Result<Observed> {
        let step = self.ui.step("booting the lab", None);
        let mut split_pages = Vec::new();
        for binary in &description.split_binaries {
            split_pages.extend(self.parts.lab_code.pages_of(&binary.path)?);
        }
        let mut session = Session::boot(self.parts, split_pages)?;
        step.done(&format!("{:.1} s", session.vm.boot_time().as_secs_f64()));

        self.baseline(&mut session)?;
        let before = self.traces(&session)?;
        let served = self.served(&mut session);
        let mut served = match served {
            Ok(served) => served,
            Err(error) => return Err(self.after_failure(&session, &before, error)),
        };
        let left = left_behind(&before, &self.traces(&session)?);
        if !left.is_empty() {
            let left =
                format!("{} left behind in the lab: {}", self.deployment.name(), left.join(", "));
            self.ui.warn(&left);
            served.notes.push(left);
        }

        let kallsyms = session.vm.kallsyms()?;
        let guest_kallsyms = session.vm.guest_kallsyms()?;
        let vdso = session.vm.vdso()?;
        let hello = session.vm.hello().clone();
        let api_version = session.api_version;
        let (recording, off) = session.finish();
        if let Err(error) = off {
            self.ui.note(&format!("the lab had to be killed: {error}"));
        }
        Ok(Observed { recording, hello, api_version, served, kallsyms, guest_kallsyms, vdso })
    }

    /// From the start to the stop of the service.
    fn served(&self, session: &mut Session<'_>) -> Result<Served> {
        let (ready, notes) = self.start(session)?;
        self.warm_up(session)?;
        let mut notes = notes;
        let (load, kinds) = self.serve(session, &mut notes)?;
        let (crossings, crossing_requests) = self.boundaries(session)?;
        let reachable = self.reachable(session)?;
        self.stop(session)?;
        Ok(Served { ready, notes, load, kinds, crossings, crossing_requests, reachable })
    }

    /// Stops what may still run, and adds to the error what is left behind all the same. The lab is
    /// thrown away anyway: this is a check of the deployment.
    fn after_failure(
        &self,
        session: &Session<'_>,
        before: &[String],
        error: anyhow::Error,
    ) -> anyhow::Error {
        if self.parts.interrupt.is_set() || !session.vm.is_alive() {
            return error;
        }
        let timeout = Duration::from_secs(self.spec.service.stop_timeout_s.into()) + STOP_MARGIN;
        // Refused when nothing was started, and a failed stop shows in what is left.
        let _ = session.vm.call("stop the service", RequestBody::DeployStop, &[], Some(timeout));
        let left = match self.traces(session) {
            Ok(after) => left_behind(before, &after),
            Err(_) => return error,
        };
        if left.is_empty() {
            return error;
        }
        anyhow!("{error:#}; left behind in the lab: {}", left.join(", "))
    }

    /// Stops a service that never got ready and tells its log: what a guest's service printed leaves the guest
    /// only when it is stopped. `None` when that says nothing either.
    fn last_words(&self, session: &Session<'_>) -> Option<String> {
        let timeout = Duration::from_secs(self.spec.service.stop_timeout_s.into()) + STOP_MARGIN;
        let stop = RequestBody::DeployStop;
        let words = match session.vm.call("stop the service", stop, &[], Some(timeout)) {
            Ok((value, _)) => value.get("log")?.as_str()?.to_owned(),
            Err(error) => error.to_string(),
        };
        Some(words).filter(|words| !words.trim().is_empty())
    }

    /// What is in the lab now that a deployment could have made.
    fn traces(&self, session: &Session<'_>) -> Result<Vec<String>> {
        let (value, _) = session.vm.call(
            "list what is in the lab",
            RequestBody::DeployTraces,
            &[],
            Some(DEPLOY_TIMEOUT),
        )?;
        serde_json::from_value(value).context("reading what is in the lab")
    }

    /// What the service can reach on the host, where others live beside it. Not part of the profile.
    fn reachable(&self, session: &mut Session<'_>) -> Result<Vec<Reachable>> {
        let (value, _) = session.vm.call(
            "look at what the service can reach",
            RequestBody::DeployReachable,
            &[],
            Some(DEPLOY_TIMEOUT),
        )?;
        session.close(Purpose::Aside)?;
        serde_json::from_value(value).context("reading what the service can reach")
    }

    fn baseline(&self, session: &mut Session<'_>) -> Result<()> {
        let step = self.ui.step("calibrating and watching the idle lab", None);
        let settled = Instant::now() + SETTLE;
        while Instant::now() < settled {
            self.parts.interrupt.check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        session.close(Purpose::Aside)?;
        session.vm.calibrate(CALIBRATION_CALLS)?;
        session.close(Purpose::Calibration)?;
        // Half of the idle windows hold an empty request to the agent, so that the code of altaz's
        // own channel is part of the baseline.
        let (n, mut silent) = (IDLE.as_millis() / session::WINDOW.as_millis(), false);
        for _ in 0..n {
            silent = !silent;
            if !silent {
                session.vm.calibrate(0)?;
            }
            session.window(Phase::Idle)?;
        }
        step.done("");
        Ok(())
    }

    fn start(&self, session: &mut Session<'_>) -> Result<(Duration, Vec<String>)> {
        let name = self.deployment.name();
        let step = self.ui.step(&format!("starting the service in {name}"), None);
        let mut check = ReadyCheck::of(self.spec, SERVICE);
        check.timeout = check.timeout.saturating_mul(self.deployment.patience());
        let (interrupt, cancelled) = (self.parts.interrupt.clone(), Arc::clone(&session.cancelled));
        let body = RequestBody::DeployStart {
            deployment: name.into(),
            spec: serde_json::to_value(self.spec).context("writing the spec for the lab")?,
        };
        session.close(Purpose::Aside)?;
        let begin = Instant::now();
        let started = session.windows_during(Phase::Start, move |vm| {
            vm.call(&format!("start the service in {name}"), body, &[], Some(DEPLOY_TIMEOUT))
        })?;
        let (started, _) = started?;
        if let Some(unavailable) = started.get("unavailable") {
            let unavailable: altaz_deploy::Unavailable =
                serde_json::from_value(unavailable.clone())
                    .context("reading why the deployment is not available")?;
            return Err(unavailable.into());
        }
        let notes = notes_of(&started);
        let netns = self.parts.netns.clone();
        let waiting = move || {
            netns.enter()?;
            let abort = || {
                let stop = interrupt.is_set() || cancelled.load(Ordering::SeqCst);
                stop.then(|| "interrupted".to_owned())
            };
            std::io::Result::Ok(wait_ready(&check, &abort))
        };
        let mut looks = 0u32;
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("altaz-ready".into())
                .spawn_scoped(scope, waiting)
                .context("starting a thread")?;
            session.windows_while(Phase::Start, thread, |session| {
                looks += 1;
                // Every few seconds: a service that is dead need not be waited for.
                if looks.is_multiple_of(10)
                    && let Some(how) = self.status(session)?.exited
                {
                    bail!("the service ended before it was ready: {how}");
                }
                Ok(())
            })
        })?;
        match outcome.context("entering the lab's network")? {
            Ok(_) => {}
            Err(NotReady::Aborted { .. }) => return Err(crate::exit::Interrupted.into()),
            Err(error) => {
                let status = self.status(session)?;
                let log = match status.exited {
                    Some(how) => format!("it ended: {how}"),
                    None => self.last_words(session).unwrap_or(status.log),
                };
                return Err(anyhow!("{error}; the service's last words:\n{log}"));
            }
        }
        let ready = begin.elapsed();
        step.done("ready");
        Ok((ready, notes))
    }

    /// A few requests, which belong to the start: what a service does once, at its first request, is
    /// not what it does for each.
    fn warm_up(&self, session: &mut Session<'_>) -> Result<()> {
        let step = self.ui.step("first requests", None);
        for load in self.spec.loads() {
            let requests = WARM_UP_REQUESTS.min(self.requests_of(load));
            self.load(session, Phase::Start, &self.aimed(load, requests), &|_| ())?;
        }
        step.done("");
        Ok(())
    }

    /// Each kind of request in windows of its own, one kind after the other.
    fn serve(
        &self,
        session: &mut Session<'_>,
        notes: &mut Vec<String>,
    ) -> Result<(LoadReport, Vec<KindOfLoad>)> {
        let mut kinds: Vec<KindOfLoad> = Vec::new();
        let mut reports = Vec::new();
        for load in self.spec.loads() {
            let requests = self.requests_of(load);
            let what = match load.name.as_str() {
                "" => "serving".to_owned(),
                name => format!("serving {name} requests"),
            };
            let step = self.ui.step(&what, Some(requests));
            let first_window = session.recording.profile_windows().count() as u32;
            let aimed = self.aimed(load, requests);
            let report =
                self.load(session, Phase::Serve, &aimed, &|requests| step.set(requests))?;
            let end_window = session.recording.profile_windows().count() as u32;
            step.done(&format!("{} requests, {} failed", report.sent, report.error_count()));
            notes.extend(aimed.shortfall(&report));
            if !load.name.is_empty() {
                kinds.push(KindOfLoad {
                    name: load.name.clone(),
                    load: summary(&report, None),
                    first_window,
                    end_window,
                });
            }
            reports.push((load.name.as_str(), report));
        }
        let whole = LoadReport::joined(&reports).context("the spec asks for no load")?;
        Ok((whole, kinds))
    }

    /// What an earlier profile must be of, to stand for this measurement.
    pub(super) fn wanted(&self) -> Wanted {
        let aimed = |load| self.aimed(load, self.requests_of(load)).description();
        let loads: Vec<(&str, String)> =
            self.spec.loads().map(|load| (load.name.as_str(), aimed(load))).collect();
        Wanted {
            service: self.spec.name.clone(),
            deployment: self.deployment.name().into(),
            image_id: self.image_id(),
            load: load::described(loads.iter().map(|(name, what)| (*name, what.as_str()))),
            requests: self.spec.loads().map(|load| self.requests_of(load)).sum(),
            kernel: self.parts.lab.kernel_release().into(),
        }
    }

    /// The images of the service and of the other processes of its pod.
    fn image_id(&self) -> String {
        let ids: Vec<&str> = self.parts.services.iter().map(ServiceImage::image_id).collect();
        ids.join("+")
    }

    fn requests_of(&self, load: &Load) -> u64 {
        self.requests.unwrap_or(load.requests)
    }

    fn aimed(&self, load: &Load, requests: u64) -> ServiceLoad {
        let at = SocketAddr::new(SERVICE, self.spec.service.port);
        ServiceLoad::of(load, at, requests, self.rate)
    }

    /// Runs load from outside while windows are taken; `progress` gets the finished requests.
    fn load(
        &self,
        session: &mut Session<'_>,
        phase: Phase,
        load: &ServiceLoad,
        progress: &dyn Fn(u64),
    ) -> Result<LoadReport> {
        session.close(Purpose::Aside)?;
        let (done, errors) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let died = Arc::new(std::sync::Mutex::new(None::<String>));
        let thread = self.load_thread(load, &done, &errors, &died, &session.cancelled);
        let mut asked_at = 0;
        let report = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("altaz-load".into())
                .spawn_scoped(scope, thread)
                .context("starting a thread")?;
            session.windows_while(phase, thread, |session| {
                progress(done.load(Ordering::Relaxed));
                // Only asked when requests fail: asking runs code in the lab.
                let failed = errors.load(Ordering::Relaxed);
                if failed > asked_at {
                    asked_at = failed;
                    if let Some(how) = self.status(session)?.exited {
                        *died.lock().unwrap_or_else(|e| e.into_inner()) = Some(how);
                    }
                }
                Ok(())
            })
        })?;
        let report = report.context("entering the lab's network")?.map_err(|e| anyhow!(e))?;
        self.parts.interrupt.check()?;
        if let Some(how) = died.lock().unwrap_or_else(|e| e.into_inner()).take() {
            bail!("the service died under load: {how}");
        }
        if let Some(why) = &report.aborted {
            bail!("the load ended early: {why}");
        }
        if report.asked > 0 && report.error_count() >= report.sent.max(1) {
            bail!("every request failed: {}", report.error_summary().unwrap_or_default());
        }
        Ok(report)
    }

    fn load_thread(
        &self,
        load: &ServiceLoad,
        done: &Arc<AtomicU64>,
        errors: &Arc<AtomicU64>,
        died: &Arc<std::sync::Mutex<Option<String>>>,
        cancelled: &Arc<AtomicBool>,
    ) -> impl FnOnce() -> std::io::Result<Result<LoadReport, String>> + Send + 'static {
        let (load, done, errors, died) =
            (load.clone(), Arc::clone(done), Arc::clone(errors), Arc::clone(died));
        let (netns, interrupt) = (self.parts.netns.clone(), self.parts.interrupt.clone());
        let cancelled = Arc::clone(cancelled);
        move || {
            netns.enter()?;
            let abort = || {
                let died = died.lock().unwrap_or_else(|e| e.into_inner()).clone();
                let stop = interrupt.is_set() || cancelled.load(Ordering::SeqCst);
                died.or_else(|| stop.then(|| "interrupted".to_owned()))
            };
            Ok(load.run(&abort, &|progress| {
                done.store(progress.done, Ordering::Relaxed);
                errors.store(progress.errors, Ordering::Relaxed);
            }))
        }
    }

    /// Some more load with the lab kernel's counters armed. Not part of the profile.
    fn boundaries(&self, session: &mut Session<'_>) -> Result<(Counts, u64)> {
        let step = self.ui.step("counting boundary crossings", None);
        session.vm.call(
            "count boundary crossings",
            RequestBody::BoundaryArm,
            &[],
            Some(DEPLOY_TIMEOUT),
        )?;
        let mut requests = 0;
        for load in self.spec.loads() {
            let load = self.aimed(load, self.requests_of(load).min(BOUNDARY_REQUESTS));
            let ignored = || Arc::new(AtomicU64::new(0));
            let died = Arc::new(std::sync::Mutex::new(None));
            let run = self.load_thread(&load, &ignored(), &ignored(), &died, &session.cancelled);
            let report = std::thread::scope(|scope| scope.spawn(run).join())
                .map_err(|_| anyhow!("the load's thread died"))?
                .context("entering the lab's network")?
                .map_err(|e| anyhow!(e))?;
            requests += report.sent;
        }
        self.parts.interrupt.check()?;
        let (value, _) = session.vm.call(
            "read the boundary counts",
            RequestBody::BoundaryRead,
            &[],
            Some(DEPLOY_TIMEOUT),
        )?;
        session.close(Purpose::Aside)?;
        let counts: Counts =
            serde_json::from_value(value).context("reading the lab's boundary counts")?;
        let words =
            counts.boundaries.iter().map(|(name, entries)| format!("{} {name}", entries.len()));
        step.done(&words.collect::<Vec<_>>().join(", "));
        Ok((counts, requests))
    }

    fn stop(&self, session: &mut Session<'_>) -> Result<()> {
        let step = self.ui.step("stopping the service", None);
        session.close(Purpose::Aside)?;
        let timeout = Duration::from_secs(self.spec.service.stop_timeout_s.into()) + STOP_MARGIN;
        let stopped = session.windows_during(Phase::Stop, move |vm| {
            vm.call("stop the service", RequestBody::DeployStop, &[], Some(timeout))
        })?;
        stopped?;
        step.done("");
        Ok(())
    }

    fn status(&self, session: &Session<'_>) -> Result<Status> {
        let (value, _) = session.vm.call(
            "look at the service",
            RequestBody::DeployStatus,
            &[],
            Some(DEPLOY_TIMEOUT),
        )?;
        Ok(Status::from(&value))
    }

    fn name(
        &self,
        description: &Description,
        observed: Observed,
        recorded_at: String,
    ) -> Result<Profile> {
        let agent = altaz_lab::AgentFile::find()?;
        let agent_index = images::single("/usr/lib/altaz/altaz-agent", &agent.bytes);
        let vdso_index = images::single(altaz_collect::exact::naming::VDSO, &observed.vdso);
        let symbols = |bytes: &[u8], whose: &str| {
            Kallsyms::parse(&String::from_utf8_lossy(bytes))
                .with_context(|| format!("reading the symbols of {whose} kernel"))
        };
        let kallsyms = symbols(&observed.kallsyms, "the lab's")?;
        let facts = images::kernel_facts(&self.parts.lab.kernel(), &kallsyms, self.parts.lab_code);
        // The nested guest boots the lab's own kernel.
        let kernel = |kallsyms| KernelCode {
            kallsyms,
            build_id: facts.build_id.clone(),
            source: Some(Arc::clone(&facts.source)),
        };
        let host_kernel = kernel(kallsyms);
        let getppid = host_kernel
            .kallsyms
            .iter()
            .find(|f| altaz_symbols::syscall_name(f.name) == Some("getppid"))
            .map(|f| f.start);
        let counted =
            getppid.map_or(0, |start| build::entries_in_calibration(&observed.recording, start));
        // A guest kernel that is a program of the host has the service's code on the host too.
        let in_guest = description.in_guest();
        let bytes_image = |index, bytes: &'_ [u8]| CodeImage {
            origin: Origin::Host,
            index,
            read: Box::new({
                let bytes = bytes.to_vec();
                move |_: &altaz_symbols::ImageFile| Ok(bytes.clone())
            }),
        };
        let mut vdso = bytes_image(&vdso_index, &observed.vdso);
        // The vDSO is mapped into whoever runs; it belongs to the code that called it.
        vdso.origin = if in_guest { Origin::Host } else { Origin::Service };
        let of_guest = observed.guest_kallsyms.as_deref().map(|b| symbols(b, "the guest's"));
        let (guest_kernel, kernel_program) =
            match (of_guest.transpose()?, self.deployment.guest_kernel_program()) {
                (Some(symbols), Some(path)) => (None, Some((path.to_owned(), symbols))),
                (Some(symbols), None) => (Some(kernel(symbols)), None),
                (None, _) => (None, None),
            };
        let sources = Sources {
            images: self
                .parts
                .service_code
                .iter()
                .map(|code| code.as_source(Origin::Service))
                .chain([
                    self.parts.lab_code.as_source(Origin::Host),
                    bytes_image(&agent_index, &agent.bytes),
                    vdso,
                ])
                .collect(),
            kernel: host_kernel,
            guest_kernel,
            kernel_program,
            rules: LayerRules::compile(&description.rules)
                .context("the deployment's layer rules")?,
            roles: description.split_binaries.iter().map(role_rule).collect(),
            host_prefers: if in_guest { Origin::Host } else { Origin::Service },
        };
        let mut names =
            Names::new(&observed.recording, sources).context("reading the images' code")?;
        let built = build::build(&observed.recording, &mut names);
        let calibration = Calibration { what: "getppid".into(), made: CALIBRATION_CALLS, counted };
        let mut packages = crate::inventory::of_lab(
            self.parts.lab_code.files(),
            &self.parts.service_code.iter().map(images::ImageCode::files).collect::<Vec<_>>(),
            &observed.hello.kernel_release,
            &String::from_utf8_lossy(&observed.kallsyms),
        )
        .context("reading what is installed")?;
        let mut profile = self.profile(description, observed, built, calibration, recorded_at);
        crate::inventory::keep_files(&mut packages, &profile.units);
        profile.manifest.packages = packages;
        Ok(profile)
    }

    /// Whether the guest's kernel is a program of the host.
    fn own_kernel(&self) -> bool {
        self.deployment.guest_kernel_program().is_some()
    }

    fn profile(
        &self,
        description: &Description,
        observed: Observed,
        built: Built,
        calibration: Calibration,
        recorded_at: String,
    ) -> Profile {
        let Built { units, windows, code, left_out, entered, executed } = built;
        let mut layers = description.layers.clone();
        for layer in &mut layers {
            layer.code = Some(code.get(&layer.name).copied().unwrap_or_default());
        }
        let mut blind_spots = description.blind_spots.clone();
        blind_spots.extend(sizes_of_the_unnamed(&code, left_out));
        let served = observed.served;
        let mut notes = description.notes.clone();
        notes.extend(served.notes.iter().cloned());
        notes.extend(served.crossings.notes.iter().cloned());
        if served.crossings.dropped > 0 {
            notes.push(format!(
                "{} boundary crossings could not be told apart by the lab's kernel; widths are lower bounds",
                served.crossings.dropped
            ));
        }
        Profile {
            manifest: Manifest {
                schema: SCHEMA.into(),
                tool_version: env!("CARGO_PKG_VERSION").into(),
                recorded_at,
                service: self.spec.name.clone(),
                deployment: self.deployment.name().into(),
                instrument: Instrument {
                    kind: InstrumentKind::Exact,
                    detail: format!(
                        "QEMU TCG, plugin API {}, {} vCPUs, windows of {} ms",
                        observed.api_version,
                        observed.hello.cpus,
                        session::WINDOW.as_millis()
                    ),
                },
                host: Host {
                    kernel: observed.hello.kernel_release.clone(),
                    arch: observed.hello.machine.clone(),
                    cpu: observed.hello.cpu.clone(),
                    cpus: observed.hello.cpus as u32,
                },
                image_id: self.image_id(),
                layers,
                boundaries: boundaries(description, &served, self.own_kernel(), &entered),
                windows,
                load: Some(summary(&served.load, Some(served.ready))),
                kinds: served.kinds,
                work: executed
                    .into_iter()
                    .map(|(layer, executed_bytes)| LayerWork { layer, executed_bytes })
                    .collect(),
                blind_spots,
                calibration: Some(calibration),
                clock: None,
                packages: Vec::new(),
                posture: served.crossings.posture.clone(),
                reachable: served.reachable,
                notes,
            },
            units,
        }
    }
}

/// What was asked and how it was answered.
fn summary(report: &LoadReport, ready: Option<Duration>) -> LoadSummary {
    LoadSummary {
        description: report.description.clone(),
        requests: report.sent,
        errors: report.error_count(),
        p50_ms: report.latencies.quantile_ms(0.5),
        p99_ms: report.latencies.quantile_ms(0.99),
        rate: report.rate(),
        ready_s: ready.map(|r| r.as_secs_f64()),
    }
}

fn role_rule(binary: &altaz_deploy::SplitBinary) -> RoleRule {
    RoleRule {
        binary: binary.path.clone(),
        roles: binary.roles.iter().map(|r| (r.role.clone(), r.functions.clone())).collect(),
        default_role: binary.default_role.clone(),
    }
}

fn sizes_of_the_unnamed(
    code: &BTreeMap<Layer, altaz_profile::CodeBytes>,
    left_out: u64,
) -> Vec<BlindSpot> {
    let spot = |layer, kind: &str, what: &str, bytes| BlindSpot {
        layer,
        kind: kind.into(),
        what: what.into(),
        bytes: Some(bytes),
        functions: None,
    };
    let mut spots = Vec::new();
    for (layer, code) in code {
        if code.jit > 0 {
            let what = "code generated at run time; it has no function of a binary";
            spots.push(spot(Some(*layer), "jit", what, code.jit));
        }
        if code.unnamed > 0 {
            let what = "executed code that no binary or symbol table explains";
            spots.push(spot(Some(*layer), "unnamed", what, code.unnamed));
        }
    }
    if left_out > 0 {
        let what = "altaz's own agent in the lab; left out of every figure";
        spots.push(spot(None, "instrument", what, left_out));
    }
    spots
}

/// State of the service in the lab.
struct Status {
    exited: Option<String>,
    log: String,
}

impl Status {
    fn from(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Self { exited: text("exited"), log: text("log").unwrap_or_default() }
    }
}

/// What the deployment has to say about how it started.
fn notes_of(value: &Value) -> Vec<String> {
    value.get("notes").cloned().and_then(|n| serde_json::from_value(n).ok()).unwrap_or_default()
}

/// Name of the system call that a function of a kernel serves.
fn system_call(layer: Layer, symbol: &str) -> Option<&str> {
    /// Package of the sentry in which a function named after it serves each system call.
    const SENTRY: &str = "gvisor.dev/gvisor/pkg/sentry/syscalls/linux.";
    match layer {
        Layer::SandboxKernel => symbol.strip_prefix(SENTRY).and_then(seccomp::named_after),
        // A kernel without wrappers around its system calls, as user-mode Linux.
        Layer::GuestKernel => altaz_symbols::syscall_name(symbol)
            .or_else(|| symbol.strip_prefix("sys_").filter(|name| seccomp::is_syscall(name))),
        _ => altaz_symbols::syscall_name(symbol),
    }
}

/// The deployment's boundaries with what crossed them: counted by the lab's kernel where it sees
/// them, else by the instrument, which saw the functions that serve each system call.
fn boundaries(
    description: &Description,
    served: &Served,
    kernel_is_a_program: bool,
    entered: &BTreeMap<(Layer, Arc<str>), u64>,
) -> Vec<Boundary> {
    let mut boundaries = description.boundaries.clone();
    let mut crossings = served.crossings.clone();
    for p in crossings.permitted.iter_mut().filter(|_| kernel_is_a_program) {
        // All its processes are the guest kernel's to the host, those that hold an application, too.
        if (p.from, p.to) == (Layer::App, Layer::HostKernel) {
            p.from = Layer::GuestKernel;
        }
    }
    crossings.fill(&mut boundaries);
    for b in boundaries.iter_mut().filter(|b| b.exercised.is_some()) {
        b.requests = Some(served.crossing_requests);
    }
    for b in boundaries.iter_mut().filter(|b| b.name == "syscall" && b.exercised.is_none()) {
        let mut entries: Vec<BoundaryEntry> = entered
            .iter()
            .filter(|((layer, _), _)| *layer == b.to)
            .filter_map(|((layer, symbol), count)| {
                Some(BoundaryEntry::new(system_call(*layer, symbol)?.to_owned(), *count))
            })
            .collect();
        BoundaryEntry::sort(&mut entries);
        b.exercised = Some(entries.len() as u32);
        b.requests = Some(served.load.sent);
        b.entries = entries;
    }
    boundaries
}
