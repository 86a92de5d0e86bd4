//! HTTP at a constant rate.
//!
//! Request *i* is due at `begin + i/rate` by the clock, whatever happened to the earlier ones. A
//! worker per connection takes the next number, waits until it is due, sends, and counts the latency
//! from the due time: time spent waiting for a busy connection is the service's latency, not the
//! load generator's excuse.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{
    Abort, Client, ErrorKind, Latencies, LoadReport, OnProgress, Progress, Request, RequestError,
};

/// A connection attempt must not hold up an abort for the whole request timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP requests at a constant rate.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpLoad {
    /// Where the service listens.
    pub addr: SocketAddr,
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// `Content-Type`, if one is to be sent.
    pub content_type: Option<String>,
    /// Body, sent with each request.
    pub body: Vec<u8>,
    /// Requests per second over all connections; more than 0.
    pub rate: f64,
    /// Connections, each kept alive; at least 1.
    pub connections: u32,
    /// How many requests to send.
    pub requests: u64,
    /// A request without a complete answer after this time has failed.
    pub timeout: Duration,
}

impl HttpLoad {
    /// The load in words (`POST /visit, 10/s, 1 connection`).
    pub fn description(&self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!(
            "{} {}, {}/s, {} connection{plural}",
            self.method, self.path, self.rate, self.connections
        )
    }
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<u64>,
    errors: BTreeMap<ErrorKind, u64>,
    first_error: Option<String>,
}

impl Tally {
    fn add(&mut self, outcome: Result<u64, RequestError>) {
        match outcome {
            Ok(us) => self.latencies_us.push(us),
            Err(e) => {
                self.first_error.get_or_insert_with(|| e.to_string());
                *self.errors.entry(e.kind).or_default() += 1;
            }
        }
    }
}

/// Sends the load and waits for the last answer. Must be called in the network namespace from which
/// the service is reached.
///
/// # Errors
/// When the load itself makes no sense (rate 0, a path with spaces). Failed requests are no error:
/// they are counted in the report.
pub fn run_http(
    load: &HttpLoad,
    abort: &Abort<'_>,
    on_progress: &OnProgress<'_>,
) -> Result<LoadReport, String> {
    if !(load.rate.is_finite() && load.rate > 0.0) {
        return Err(format!("a rate of {} requests per second is not possible", load.rate));
    }
    if load.connections == 0 {
        return Err("a load needs at least one connection".into());
    }
    let authority = load.addr.to_string();
    let request = Request::new(
        &load.method,
        &load.path,
        &authority,
        load.content_type.as_deref(),
        &load.body,
    )?;
    let run = Run {
        load,
        request,
        begin: Instant::now() + Duration::from_millis(1),
        next: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        aborted: Mutex::new(None),
        abort,
        on_progress,
    };
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..load.connections).map(|_| scope.spawn(|| run.worker())).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_default()).collect()
    });
    let elapsed = run.begin.elapsed();
    let (mut errors, mut first_error, mut latencies) = (BTreeMap::new(), None, Vec::new());
    for tally in tallies {
        latencies.extend(tally.latencies_us);
        first_error = first_error.or(tally.first_error);
        for (kind, n) in tally.errors {
            *errors.entry(kind).or_default() += n;
        }
    }
    Ok(LoadReport {
        description: load.description(),
        asked: load.requests,
        sent: run.sent.load(Ordering::Relaxed),
        errors,
        first_error,
        latencies: Latencies::from_micros(latencies),
        elapsed,
        aborted: run.aborted.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()),
        output_tail: String::new(),
    })
}

struct Run<'a> {
    load: &'a HttpLoad,
    request: Request,
    begin: Instant,
    next: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    stopped: AtomicBool,
    aborted: Mutex<Option<String>>,
    abort: &'a Abort<'a>,
    on_progress: &'a OnProgress<'a>,
}

impl Run<'_> {
    fn worker(&self) -> Tally {
        let mut tally = Tally::default();
        let give_up = || self.abort_reason();
        let mut client =
            Client::new(self.load.addr, self.load.timeout.min(CONNECT_TIMEOUT), &give_up);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.load.requests {
                return tally;
            }
            let due = self.begin + Duration::from_secs_f64(index as f64 / self.load.rate);
            if !self.wait_until(due) {
                return tally;
            }
            let sent_at = Instant::now();
            let outcome = client.send(&self.request, sent_at + self.load.timeout);
            if outcome.is_err() && self.stopped.load(Ordering::Relaxed) {
                return tally; // cut off by the abort, neither answered nor failed
            }
            let outcome = outcome.and_then(|response| match response.status {
                200..=399 => Ok(due.elapsed().as_micros() as u64),
                code => Err(RequestError::new(
                    ErrorKind::Status(code),
                    format!("{} {}", self.load.method, self.load.path),
                )),
            });
            if outcome.is_err() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            tally.add(outcome);
            let done = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
            (self.on_progress)(Progress {
                done,
                errors: self.failed.load(Ordering::Relaxed),
                total: self.load.requests,
            });
        }
    }

    /// Sleeps until `due`; false when the load was aborted.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            if self.abort_reason().is_some() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn abort_reason(&self) -> Option<String> {
        let mut aborted = self.aborted.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if aborted.is_none() {
            *aborted = (self.abort)();
            self.stopped.store(aborted.is_some(), Ordering::Relaxed);
        }
        aborted.clone()
    }
}
