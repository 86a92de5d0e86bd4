//! Dispatches to the deployments of altaz-deploy; knows none of them.

use std::fs;
use std::io;
use std::time::Duration;

use altaz_deploy::boundary::{Counter, Counts, TRACEFS};
use altaz_deploy::permitted::{Permitted, gvisor};
use altaz_deploy::{LabEnv, Running, ServiceSpec, deployments};
use altaz_target::Roots;
use altaz_target::survey::survey;
use serde_json::{Value, json};

/// The one service of this lab.
#[derive(Default)]
pub(super) struct Service {
    running: Option<Box<dyn Running>>,
    stop_timeout: Duration,
    guest_kallsyms: Option<Vec<u8>>,
    counter: Option<Counter>,
}

/// KVM's device, which lists the registers that it handles.
const KVM: &str = "/dev/kvm";

/// Reads filters and posture of everything that runs here but these processes, and asks a sentry what it implements. What
/// cannot be read is a note and no failure: the counts stand without it.
fn permissions(counts: &mut Counts, leave_out: &[u32]) {
    let survey = match survey(&Roots::here(), leave_out) {
        Ok(survey) => survey,
        Err(e) => {
            counts.notes.push(format!("what the processes may do is not known: {e}"));
            return;
        }
    };
    counts.permitted.extend(survey.syscalls.into_iter().map(|b| Permitted {
        entries: b.permitted_entries,
        ..Permitted::new(&b.name, (b.from, b.to), [], FILTERS)
    }));
    counts.posture.extend(survey.posture);
    counts.notes.extend(survey.notes);
    if let Some(runsc) = survey.sentry {
        match gvisor::permitted(&runsc.display().to_string()) {
            Ok(permitted) => counts.permitted.push(permitted),
            Err(e) => counts.notes.push(format!("what the sentry implements is not known: {e}")),
        }
    }
}

/// Where the permitted system calls are from.
const FILTERS: &str =
    "read from the running process (PTRACE_SECCOMP_GET_FILTER) and evaluated for every system call";

fn refuse<T>(message: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(message.into()))
}

impl Service {
    /// Starts the service: `{"notes": […]}`, or `{"unavailable": {reason, remedy}}`.
    pub(super) fn start(&mut self, deployment: &str, spec: &Value) -> io::Result<Value> {
        if self.running.is_some() {
            return refuse("a service runs in this lab already");
        }
        let Some(chosen) = deployments::by_name(deployment) else {
            return refuse(format!("there is no deployment {deployment}"));
        };
        let spec: ServiceSpec = serde_json::from_value(spec.clone())?;
        let lab = LabEnv::default();
        for directory in [&lab.run, &lab.scratch] {
            fs::create_dir_all(directory)?;
        }
        if let Err(unavailable) = chosen.available(&lab) {
            return Ok(json!({ "unavailable": unavailable }));
        }
        let running = chosen.start(&lab, &spec).map_err(io::Error::other)?;
        let notes = running.notes();
        self.running = Some(running);
        self.stop_timeout = Duration::from_secs(spec.service.stop_timeout_s.into());
        Ok(json!({ "notes": notes }))
    }

    /// `{"exited": null or how, "log": tail}`.
    pub(super) fn status(&mut self) -> io::Result<Value> {
        match &mut self.running {
            Some(running) => Ok(json!({ "exited": running.exited(), "log": running.log_tail() })),
            None => refuse("no service was started"),
        }
    }

    /// What the service can reach on its host; a list.
    pub(super) fn reachable(&self) -> io::Result<Value> {
        match &self.running {
            Some(running) => Ok(serde_json::to_value(running.reachable())?),
            None => refuse("no service was started"),
        }
    }

    /// Stops the service and keeps what it leaves: `{"log": tail}`.
    pub(super) fn stop(&mut self) -> io::Result<Value> {
        let Some(mut running) = self.running.take() else {
            return refuse("no service was started");
        };
        let stopped = running.stop(self.stop_timeout);
        self.guest_kallsyms = running.guest_kallsyms();
        let log = running.log_tail();
        stopped.map_err(io::Error::other)?;
        Ok(json!({ "log": log }))
    }

    /// Symbols of the nested guest's kernel, once it has stopped.
    pub(super) fn guest_kallsyms(&self) -> Option<&[u8]> {
        self.guest_kallsyms.as_deref()
    }

    /// Begins to count boundary crossings.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        if self.counter.is_some() {
            return refuse("boundary crossings are counted already");
        }
        self.counter = Some(Counter::arm(TRACEFS.as_ref()).map_err(io::Error::other)?);
        Ok(())
    }

    /// Reads the counts and stops counting.
    pub(super) fn read(&mut self) -> io::Result<Value> {
        let Some(counter) = self.counter.take() else {
            return refuse("boundary crossings are not counted");
        };
        let mut counts = counter.read().map_err(io::Error::other)?;
        counts.look(TRACEFS.as_ref(), &LabEnv::default().run, KVM.as_ref());
        let mut leave_out = vec![1, std::process::id()];
        leave_out.extend(self.running.iter().flat_map(|running| running.bystanders()));
        permissions(&mut counts, &leave_out);
        Ok(serde_json::to_value(counts)?)
    }
}
