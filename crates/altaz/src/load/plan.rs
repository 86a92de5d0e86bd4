//! From a service spec to the load and the readiness check that it asks for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use altaz_deploy::model::{self as spec, LoadKind, ServiceSpec};

use super::{
    Abort, CommandLoad, HttpLoad, LoadReport, OnProgress, Probe, ReadyCheck, run_command, run_http,
};

/// A request that takes longer has failed. Generous: the lab is emulated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A load command that takes longer is stuck.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);

/// The load of a spec, aimed at an address.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceLoad {
    /// altaz's own generator.
    Http(HttpLoad),
    /// A command.
    Command(CommandLoad),
}

impl ServiceLoad {
    /// The first load that a spec asks for. `requests` and `rate` override the spec's own; a rate means
    /// nothing to a command.
    pub fn new(spec: &ServiceSpec, host: IpAddr, requests: u64, rate: Option<f64>) -> Self {
        Self::of(&spec.load, SocketAddr::new(host, spec.service.port), requests, rate)
    }

    /// One kind of request of a spec, aimed at `addr`; otherwise as [`Self::new`].
    pub fn of(load: &spec::Load, addr: SocketAddr, requests: u64, rate: Option<f64>) -> Self {
        match &load.kind {
            LoadKind::Http(http) => Self::Http(HttpLoad {
                addr,
                method: http.method.clone(),
                path: http.path.clone(),
                content_type: http.content_type.clone(),
                body: http.body.clone().into_bytes(),
                rate: rate.unwrap_or(http.rate),
                connections: http.connections,
                requests,
                timeout: REQUEST_TIMEOUT,
            }),
            LoadKind::Command(argv) => Self::Command(CommandLoad {
                argv: argv.clone(),
                addr,
                requests,
                workdir: None,
                timeout: COMMAND_TIMEOUT,
            }),
        }
    }

    /// Runs it in the calling thread's network namespace. A command reports no progress.
    ///
    /// # Errors
    /// When it makes no sense or cannot be started. Failed requests are counted in the report.
    pub fn run(
        &self,
        abort: &Abort<'_>,
        on_progress: &OnProgress<'_>,
    ) -> Result<LoadReport, String> {
        match self {
            Self::Http(load) => run_http(load, abort, on_progress),
            Self::Command(load) => run_command(load, abort),
        }
    }

    /// The load in words, as in the report of its run.
    pub fn description(&self) -> String {
        match self {
            Self::Http(load) => load.description(),
            Self::Command(load) => load.description(),
        }
    }

    /// What a reader of the figures must know when the service did not keep up with the rate asked for: the
    /// latencies are then those of requests that waited for one another.
    pub fn shortfall(&self, report: &LoadReport) -> Option<String> {
        /// Share of the rate above which it counts as kept up with.
        const KEPT_UP: f64 = 0.9;
        let Self::Http(load) = self else { return None };
        let rate = report.sent as f64 / report.elapsed.as_secs_f64();
        if !rate.is_finite() || rate >= KEPT_UP * load.rate {
            return None;
        }
        Some(format!(
            "the service answered {rate:.1} of the {} requests/s that were asked of it; latencies hold the \
             time that requests waited for one another",
            load.rate
        ))
    }

    /// How long it takes at its rate; `None` for a command.
    pub fn expected(&self) -> Option<Duration> {
        match self {
            Self::Http(load) => Duration::try_from_secs_f64(load.requests as f64 / load.rate).ok(),
            Self::Command(_) => None,
        }
    }
}

impl ReadyCheck {
    /// The readiness check that a spec asks for.
    pub fn of(spec: &ServiceSpec, host: IpAddr) -> Self {
        Self {
            addr: SocketAddr::new(host, spec.ready.port),
            probe: match &spec.ready.check {
                spec::ReadyCheck::Http(path) => Probe::Http(path.clone()),
                spec::ReadyCheck::Tcp => Probe::Tcp,
            },
            timeout: Duration::from_secs(spec.ready.timeout_s.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_slower_than_it_was_asked_is_said_to_be() {
        let load = |rate| {
            ServiceLoad::Http(HttpLoad {
                addr: SocketAddr::from(([10, 77, 0, 10], 80)),
                method: "GET".into(),
                path: "/".into(),
                content_type: None,
                body: Vec::new(),
                rate,
                connections: 1,
                requests: 30,
                timeout: REQUEST_TIMEOUT,
            })
        };
        let report = LoadReport {
            description: String::new(),
            asked: 30,
            sent: 30,
            errors: Default::default(),
            first_error: None,
            latencies: Default::default(),
            elapsed: Duration::from_secs(15),
            aborted: None,
            output_tail: String::new(),
        };
        let said = load(10.0).shortfall(&report).unwrap();
        assert!(said.contains("answered 2.0 of the 10 requests/s"), "{said}");
        assert_eq!(load(2.1).shortfall(&report), None);
        let nothing = LoadReport { sent: 0, elapsed: Duration::ZERO, ..report };
        assert_eq!(load(10.0).shortfall(&nothing), None);
    }
}
