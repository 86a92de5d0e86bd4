//! The load: requests sent to the service from outside the machine that it runs on.
//!
//! - [`run_http`]: HTTP/1.1 at a constant rate over kept-alive connections (open loop: request *i* is
//!   due at `begin + i/rate`, and its latency is counted from that moment, so a service that stalls
//!   cannot hide the requests that it made wait).
//! - [`run_command`]: any command of the user's.
//! - [`wait_ready`]: the readiness check.
//!
//! Everything here uses plain blocking sockets and child processes of the calling thread, so it runs
//! inside whatever network namespace the caller has entered. It knows nothing of labs, deployments
//! or profiles.

mod command;
mod http;
mod pace;
mod plan;
mod ready;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use command::{CommandLoad, run_command};
pub use http::{Client, Request, Response};
pub use pace::{HttpLoad, run_http};
pub use plan::ServiceLoad;
pub use ready::{NotReady, Probe, ReadyCheck, wait_ready};

/// Asked every tenth of a second or so while something runs; a reason ends it early (the user
/// interrupted, the service died).
pub type Abort<'a> = dyn Fn() -> Option<String> + Sync + 'a;

/// Called after each finished request (HTTP) with the state so far.
pub type OnProgress<'a> = dyn Fn(Progress) + Sync + 'a;

/// State of a running load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests finished, failed ones included.
    pub done: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests to be sent in all.
    pub total: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection could be made.
    Connect,
    /// No complete answer in time.
    Timeout,
    /// The connection was closed or reset before the answer was complete.
    Closed,
    /// Another error of the socket.
    Io,
    /// The answer was not HTTP.
    BadResponse,
    /// The answer's status was neither 2xx nor 3xx.
    Status(u16),
    /// The load command failed.
    Command,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connection failed"),
            Self::Timeout => f.write_str("timed out"),
            Self::Closed => f.write_str("connection closed"),
            Self::Io => f.write_str("socket error"),
            Self::BadResponse => f.write_str("not an HTTP answer"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Command => f.write_str("load command failed"),
        }
    }
}

/// A request that failed: its kind for counting, and what happened in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct RequestError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened.
    pub detail: String,
}

impl RequestError {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// Latencies of the requests that succeeded, exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies {
    sorted_us: Vec<u64>,
}

impl Latencies {
    /// From microseconds in any order.
    pub fn from_micros(mut us: Vec<u64>) -> Self {
        us.sort_unstable();
        Self { sorted_us: us }
    }

    /// Those of several runs together.
    fn joined<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        Self::from_micros(all.flat_map(|l| l.sorted_us.iter().copied()).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.sorted_us.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted_us.is_empty()
    }

    /// The smallest latency that at least the share `q` (0 to 1) of the requests did not exceed, in
    /// milliseconds (nearest rank). `None` when no request succeeded.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let n = self.sorted_us.len();
        let rank = (q.clamp(0.0, 1.0) * n as f64).ceil() as usize;
        let us = self.sorted_us.get(rank.clamp(1, n.max(1)) - 1)?;
        Some(*us as f64 / 1000.0)
    }
}

/// What a load did and how it was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// The load in words; equal for comparable runs.
    pub description: String,
    /// Requests asked for.
    pub asked: u64,
    /// Requests sent, failed ones included.
    pub sent: u64,
    /// Requests that failed, by kind.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// The first failure in words.
    pub first_error: Option<String>,
    /// Latencies from the moment a request was due. Empty for command loads.
    pub latencies: Latencies,
    /// From the first request's due time to the last answer.
    pub elapsed: Duration,
    /// Why it ended before all requests were sent.
    pub aborted: Option<String>,
    /// The last output of a load command.
    pub output_tail: String,
}

/// Several kinds of requests in words, each with its name; of a single one the name is left out.
pub(crate) fn described<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let parts: Vec<_> = parts.into_iter().collect();
    match parts.as_slice() {
        [(_, one)] => (*one).to_owned(),
        all => {
            all.iter().map(|(name, what)| format!("{name}: {what}")).collect::<Vec<_>>().join("; ")
        }
    }
}

impl LoadReport {
    /// Several kinds of requests, made one after the other, as one load. `None` of none.
    pub fn joined(parts: &[(&str, Self)]) -> Option<Self> {
        if let [(_, one)] = parts {
            return Some(one.clone());
        }
        let (_, last) = parts.last()?;
        let mut errors = BTreeMap::new();
        for (kind, n) in parts.iter().flat_map(|(_, part)| &part.errors) {
            *errors.entry(kind.clone()).or_insert(0) += n;
        }
        Some(Self {
            description: described(parts.iter().map(|(name, part)| (*name, &*part.description))),
            asked: parts.iter().map(|(_, p)| p.asked).sum(),
            sent: parts.iter().map(|(_, p)| p.sent).sum(),
            errors,
            first_error: parts.iter().find_map(|(_, p)| p.first_error.clone()),
            latencies: Latencies::joined(parts.iter().map(|(_, p)| &p.latencies)),
            elapsed: parts.iter().map(|(_, p)| p.elapsed).sum(),
            aborted: parts.iter().find_map(|(_, p)| p.aborted.clone()),
            output_tail: last.output_tail.clone(),
        })
    }

    /// Requests that failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Successful requests per second; `None` when none succeeded.
    pub fn rate(&self) -> Option<f64> {
        let ok = self.sent.saturating_sub(self.error_count());
        let seconds = self.elapsed.as_secs_f64();
        (ok > 0 && seconds > 0.0).then(|| ok as f64 / seconds)
    }

    /// The failures in words (`2 × status 500, 1 × timed out; first: …`), or `None`.
    pub fn error_summary(&self) -> Option<String> {
        if self.errors.is_empty() {
            return None;
        }
        let kinds: Vec<_> = self.errors.iter().map(|(kind, n)| format!("{n} × {kind}")).collect();
        let mut text = kinds.join(", ");
        if let Some(first) = &self.first_error {
            text.push_str("; first: ");
            text.push_str(first);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_use_the_nearest_rank() {
        let l = Latencies::from_micros((1..=100).rev().map(|ms| ms * 1000).collect());
        assert_eq!(l.quantile_ms(0.5), Some(50.0));
        assert_eq!(l.quantile_ms(0.99), Some(99.0));
        assert_eq!(l.quantile_ms(1.0), Some(100.0));
        assert_eq!(l.quantile_ms(0.0), Some(1.0));
    }

    #[test]
    fn no_successful_request_means_no_latency() {
        assert_eq!(Latencies::default().quantile_ms(0.5), None);
    }

    fn failing() -> LoadReport {
        LoadReport {
            description: "5 × GET /".into(),
            asked: 5,
            sent: 5,
            errors: BTreeMap::from([(ErrorKind::Status(500), 2), (ErrorKind::Timeout, 1)]),
            first_error: Some("status 500: Internal Server Error".into()),
            latencies: Latencies::default(),
            elapsed: Duration::from_secs(2),
            aborted: None,
            output_tail: String::new(),
        }
    }

    #[test]
    fn kinds_of_requests_add_up_to_one_load_and_a_single_kind_stays_as_it_is() {
        let mut fine = failing();
        (fine.errors, fine.first_error) = (BTreeMap::new(), None);
        fine.latencies = Latencies::from_micros(vec![3000, 1000]);
        let both = LoadReport::joined(&[("read", fine.clone()), ("write", failing())]).unwrap();
        assert_eq!(both.description, "read: 5 × GET /; write: 5 × GET /");
        assert_eq!((both.sent, both.error_count(), both.elapsed.as_secs()), (10, 3, 4));
        assert_eq!(both.latencies.quantile_ms(1.0), Some(3.0));
        assert_eq!(LoadReport::joined(&[("", fine.clone())]), Some(fine));
        assert_eq!(LoadReport::joined(&[]), None);
    }

    #[test]
    fn errors_are_summed_up_by_kind() {
        let report = failing();
        assert_eq!(report.error_count(), 3);
        assert_eq!(report.rate(), Some(1.0));
        assert_eq!(
            report.error_summary().as_deref(),
            Some("1 × timed out, 2 × status 500; first: status 500: Internal Server Error")
        );
    }
}
