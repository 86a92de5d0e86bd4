//! Metrics of a watch, for Prometheus: text format 0.0.4 over HTTP, at an address the user gave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;

use super::usage::Usage;

/// Patience with a client.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is told. Counters only grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    /// Name of the service.
    pub(crate) service: String,
    /// Functions seen.
    pub(crate) functions: u64,
    /// Functions reported as new.
    pub(crate) new_functions: u64,
    /// Entry points of boundaries reported as new.
    pub(crate) new_entries: u64,
    /// Events lost.
    pub(crate) lost: u64,
    /// Events read.
    pub(crate) events: u64,
    /// Share of one CPU that observing takes from the service.
    pub(crate) cost: f64,
    /// Coverage, once it can be said.
    pub(crate) coverage: Option<f64>,
    /// What is normal has been learned.
    pub(crate) learned: bool,
    /// Processes observed.
    pub(crate) processes: u64,
}

impl Metrics {
    /// The text format.
    pub(crate) fn text(&self, usage: Option<Usage>) -> String {
        let mut out = String::new();
        let service = escaped(&self.service);
        let mut line = |name: &str, kind: &str, help: &str, value: String| {
            out.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{service=\"{service}\"}} {value}\n"
            ));
        };
        line("altaz_functions", "gauge", "Functions seen.", self.functions.to_string());
        line(
            "altaz_new_functions_total",
            "counter",
            "Functions traversed for the first time, beyond what is normal.",
            self.new_functions.to_string(),
        );
        line(
            "altaz_new_entries_total",
            "counter",
            "Entry points of boundaries used for the first time, beyond what is normal.",
            self.new_entries.to_string(),
        );
        line("altaz_events_total", "counter", "Events read.", self.events.to_string());
        line("altaz_lost_events_total", "counter", "Events lost.", self.lost.to_string());
        line(
            "altaz_cost_ratio",
            "gauge",
            "Share of one CPU that observing takes from the service.",
            format!("{:.6}", self.cost),
        );
        line(
            "altaz_learned",
            "gauge",
            "Whether what is normal is known (1).",
            u8::from(self.learned).to_string(),
        );
        line("altaz_processes", "gauge", "Processes observed.", self.processes.to_string());
        if let Some(coverage) = self.coverage {
            line(
                "altaz_coverage_ratio",
                "gauge",
                "Share of this load's code that was seen, of the layer that was seen least.",
                format!("{coverage:.6}"),
            );
        }
        if let Some(usage) = usage {
            let cpu = format!("{:.3}", usage.cpu.as_secs_f64());
            line("altaz_cpu_seconds_total", "counter", "Processor time of altaz itself.", cpu);
            line(
                "altaz_peak_memory_bytes",
                "gauge",
                "Largest resident set of altaz itself.",
                usage.peak_memory.to_string(),
            );
        }
        out
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Serves metrics until the process ends.
pub(crate) struct Server {
    metrics: Arc<Mutex<Metrics>>,
    address: SocketAddr,
}

impl Server {
    /// Begins to listen, and to tell these.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) fn start(address: SocketAddr, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot serve metrics at {address}; use another --metrics"))?;
        let address = listener.local_addr().unwrap_or(address);
        let metrics = Arc::new(Mutex::new(metrics));
        let shown = Arc::clone(&metrics);
        std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let text = {
                        let metrics = shown.lock().unwrap_or_else(PoisonError::into_inner);
                        metrics.text(Usage::now())
                    };
                    // A client that goes away is none of our business.
                    let _ = answer(stream, &text);
                }
            })
            .context("cannot start a thread for metrics")?;
        Ok(Self { metrics, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on these are told.
    pub(crate) fn set(&self, metrics: Metrics) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
    }
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut chunk = [0_u8; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 << 10 {
        match stream.read(&mut chunk)? {
            0 => break,
            n => request.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let (status, body) = match parsed.parse(&request) {
        Ok(httparse::Status::Complete(_)) => match (parsed.method, parsed.path) {
            (Some("GET"), Some("/metrics")) => ("200 OK", text),
            (Some("GET"), _) => ("404 Not Found", "metrics are at /metrics\n"),
            _ => ("405 Method Not Allowed", "only GET\n"),
        },
        _ => ("400 Bad Request", "no HTTP request\n"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn metrics_are_told_as_they_are_set() {
        let service = "a\"b".to_owned();
        let first = Metrics { service: service.clone(), ..Metrics::default() };
        let server = Server::start("127.0.0.1:0".parse().unwrap(), first).unwrap();
        let answer = get(server.address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.contains("\naltaz_functions{service=\"a\\\"b\"} 0\n"), "{answer}");
        server.set(Metrics { service, new_functions: 7, ..Metrics::default() });
        let answer = get(server.address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\naltaz_new_functions_total{service=\"a\\\"b\"} 7\n"), "{answer}");
        assert!(answer.contains("altaz_peak_memory_bytes"), "{answer}");
        assert!(!answer.contains("altaz_coverage_ratio"), "not known is not told");
        let other = get(server.address(), "GET / HTTP/1.1\r\n\r\n");
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
        let wrong = get(server.address(), "\0\0 nonsense\r\n\r\n");
        assert!(wrong.starts_with("HTTP/1.1 400 "), "{wrong}");
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let start = |address| Server::start(address, Metrics::default());
        let server = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = start(server.address()).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(&server.address().to_string()), "{error:#}");
    }
}
