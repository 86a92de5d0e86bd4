//! The readiness check: asks the service from outside until it answers.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Abort, Client, ErrorKind, Request, RequestError};

/// A connection attempt that is not answered sooner is made again: a service's address often
/// appears on the network after the first attempt, and TCP's own retries back off for seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);

/// What makes a service ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this path is answered with 2xx.
    Http(String),
    /// A connection is accepted.
    Tcp,
}

/// A readiness check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyCheck {
    /// Where the service will listen.
    pub addr: SocketAddr,
    /// What makes it ready.
    pub probe: Probe,
    /// How long to wait.
    pub timeout: Duration,
}

/// Why a service did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Time ran out.
    #[error("the service at {addr} was not ready after {} s; last answer: {last}; look at its log, \
             or raise ready.timeout_s in the spec", waited.as_secs())]
    TimedOut {
        /// Where it should have listened.
        addr: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
        /// The last failure.
        last: String,
    },
    /// The abort callback gave a reason.
    #[error("stopped waiting for the service at {addr}: {reason}")]
    Aborted {
        /// Where it should have listened.
        addr: SocketAddr,
        /// The reason.
        reason: String,
    },
    /// The check cannot be made.
    #[error("the readiness check makes no sense: {0}")]
    Invalid(String),
}

/// Waits until the service is ready and says how long that took. Must be called in the network
/// namespace from which the service is reached.
///
/// # Errors
/// When it was not ready in time, or `abort` gave a reason.
pub fn wait_ready(check: &ReadyCheck, abort: &Abort<'_>) -> Result<Duration, NotReady> {
    let begin = Instant::now();
    let deadline = begin + check.timeout;
    let addr = check.addr;
    let request = match &check.probe {
        Probe::Http(path) => Some(
            Request::new("GET", path, &addr.to_string(), None, b"").map_err(NotReady::Invalid)?,
        ),
        Probe::Tcp => None,
    };
    let mut last = "none".to_owned();
    loop {
        if let Some(reason) = abort() {
            return Err(NotReady::Aborted { addr, reason });
        }
        if Instant::now() >= deadline {
            return Err(NotReady::TimedOut { addr, waited: begin.elapsed(), last });
        }
        let outcome = match &request {
            Some(request) => ask(addr, request, deadline, abort),
            None => TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT)
                .map(drop)
                .map_err(|e| RequestError::new(ErrorKind::Connect, e.to_string())),
        };
        match outcome {
            Ok(()) => return Ok(begin.elapsed()),
            Err(e) => last = e.to_string(),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(PAUSE.min(left));
    }
}

fn ask(
    addr: SocketAddr,
    request: &Request,
    deadline: Instant,
    abort: &Abort<'_>,
) -> Result<(), RequestError> {
    let mut client = Client::new(addr, CONNECT_TIMEOUT, abort);
    let status = client.send(request, deadline)?.status;
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(RequestError::new(ErrorKind::Status(status), "the readiness check wants 2xx"))
    }
}
