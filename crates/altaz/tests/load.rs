//! The load generator against servers that answer slowly, break off or talk nonsense.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use altaz::load::{
    CommandLoad, ErrorKind, HttpLoad, LoadReport, NotReady, Probe, ReadyCheck, run_command,
    run_http, wait_ready,
};

/// What a test server does with request number `i` on a connection; false closes the connection.
type Handler = dyn Fn(u64, &mut TcpStream) -> bool + Send + Sync;

struct Server {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

/// Serves each connection on a thread; request numbers count over the whole server.
fn serve(handler: impl Fn(u64, &mut TcpStream) -> bool + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (c, r) = (connections.clone(), requests.clone());
    let handler: Arc<Handler> = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            c.fetch_add(1, Ordering::SeqCst);
            let (handler, r) = (handler.clone(), r.clone());
            std::thread::spawn(move || connection(stream, &*handler, &r));
        }
    });
    Server { addr, connections, requests }
}

fn connection(mut stream: TcpStream, handler: &Handler, requests: &AtomicU64) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(n) = line.strip_prefix("Content-Length: ") {
                length = n.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut body).unwrap();
        if !handler(requests.fetch_add(1, Ordering::SeqCst), &mut stream) {
            return;
        }
    }
}

fn answer(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).is_ok()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn load(addr: SocketAddr, requests: u64, rate: f64, connections: u32) -> HttpLoad {
    HttpLoad {
        addr,
        method: "POST".into(),
        path: "/visit".into(),
        content_type: None,
        body: b"x".to_vec(),
        rate,
        connections,
        requests,
        timeout: Duration::from_millis(500),
    }
}

fn run(load: &HttpLoad) -> LoadReport {
    run_http(load, &|| None, &|_| {}).unwrap()
}

#[test]
fn the_rate_is_kept_over_one_kept_alive_connection() {
    let server = serve(|_, s| answer(s, OK));
    let report = run(&load(server.addr, 50, 100.0, 1));
    assert_eq!((report.sent, report.error_count()), (50, 0));
    assert_eq!(report.latencies.len(), 50);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    // 50 requests at 100/s: the last is due after 0.49 s, however fast the server answers.
    assert!(report.elapsed >= Duration::from_millis(490), "{:?}", report.elapsed);
    assert!(report.elapsed < Duration::from_millis(1500), "{:?}", report.elapsed);
}

#[test]
fn a_stall_is_charged_to_every_request_that_had_to_wait_for_it() {
    let server = serve(|i, s| {
        if i == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        answer(s, OK)
    });
    let report = run(&load(server.addr, 30, 100.0, 1));
    assert_eq!(report.error_count(), 0);
    // A closed loop would see one slow request in 30. Here request 10 was due at 100 ms and could
    // not be sent before 300 ms.
    assert!(report.latencies.quantile_ms(0.5).unwrap() > 50.0, "{:?}", report.latencies);
}

#[test]
fn more_connections_hide_one_slow_answer_from_the_others() {
    let server = serve(|i, s| {
        if i == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        answer(s, OK)
    });
    let report = run(&load(server.addr, 30, 100.0, 4));
    assert!(report.latencies.quantile_ms(0.5).unwrap() < 50.0, "{:?}", report.latencies);
    assert!(report.latencies.quantile_ms(1.0).unwrap() >= 290.0, "{:?}", report.latencies);
}

#[test]
fn statuses_other_than_2xx_and_3xx_are_errors_counted_by_status() {
    let server = serve(|i, s| match i % 4 {
        0 => answer(s, OK),
        1 => answer(s, "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
        2 => answer(s, "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nhelp"),
        _ => answer(s, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    });
    let report = run(&load(server.addr, 40, 400.0, 1));
    assert_eq!(report.errors[&ErrorKind::Status(500)], 10);
    assert_eq!(report.errors[&ErrorKind::Status(404)], 10);
    assert_eq!(report.latencies.len(), 20);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "an error status closes nothing");
    assert!(report.first_error.unwrap().contains("status 500"));
}

#[test]
fn a_connection_broken_off_is_an_error_and_the_next_request_gets_a_new_one() {
    let server = serve(|i, s| match i {
        3 => false,
        6 => {
            answer(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            false
        }
        _ => answer(s, OK),
    });
    let report = run(&load(server.addr, 10, 100.0, 1));
    assert_eq!(report.errors.get(&ErrorKind::Closed), Some(&2), "{report:?}");
    assert_eq!(report.latencies.len(), 8);
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[test]
fn a_server_that_closes_politely_between_requests_causes_no_error() {
    let server = serve(|_, s| {
        answer(s, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        false
    });
    let report = run(&load(server.addr, 10, 50.0, 1));
    assert_eq!((report.sent, report.error_count()), (10, 0), "{report:?}");
    // The same without saying so: an idle connection is found closed before it is used.
    let server = serve(|_, s| {
        answer(s, OK);
        false
    });
    let report = run(&load(server.addr, 10, 50.0, 1));
    assert_eq!((report.sent, report.error_count()), (10, 0), "{report:?}");
}

#[test]
fn chunked_answers_and_interim_answers_are_read_to_their_end() {
    let server = serve(|_, s| {
        answer(s, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        answer(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab");
        std::thread::sleep(Duration::from_millis(5));
        answer(s, "cd\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n")
    });
    let report = run(&load(server.addr, 10, 100.0, 1));
    assert_eq!((report.sent, report.error_count()), (10, 0), "{report:?}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn answers_that_end_with_the_connection_are_complete() {
    let server = serve(|_, s| {
        answer(s, "HTTP/1.0 200 OK\r\n\r\nall of it");
        false
    });
    let report = run(&load(server.addr, 5, 100.0, 1));
    assert_eq!((report.sent, report.error_count()), (5, 0), "{report:?}");
}

#[test]
fn garbage_is_not_an_answer() {
    let server = serve(|i, s| match i % 2 {
        0 => answer(s, "\x00\x01\x02 what?\r\n\r\n"),
        _ => answer(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    });
    let report = run(&load(server.addr, 6, 100.0, 1));
    assert_eq!(report.errors.get(&ErrorKind::BadResponse), Some(&6), "{report:?}");
}

#[test]
fn no_answer_in_time_is_a_timeout_and_a_dripping_one_too() {
    let server = serve(|_, s| {
        for byte in OK.bytes() {
            std::thread::sleep(Duration::from_millis(100));
            if s.write_all(&[byte]).is_err() {
                break;
            }
        }
        false
    });
    let report = run(&load(server.addr, 2, 100.0, 2));
    assert_eq!(report.errors.get(&ErrorKind::Timeout), Some(&2), "{report:?}");
    assert!(report.elapsed < Duration::from_secs(2), "{:?}", report.elapsed);
}

#[test]
fn nobody_listening_is_counted_as_failed_connections() {
    let addr = unused_address();
    let report = run(&load(addr, 5, 100.0, 1));
    assert_eq!(report.errors.get(&ErrorKind::Connect), Some(&5), "{report:?}");
    assert_eq!(report.rate(), None);
}

#[test]
fn an_abort_ends_the_load_early_and_says_why() {
    let server = serve(|_, s| answer(s, OK));
    let begin = Instant::now();
    let abort =
        || (begin.elapsed() > Duration::from_millis(300)).then(|| "the service died".to_owned());
    let report = run_http(&load(server.addr, 10_000, 50.0, 2), &abort, &|_| {}).unwrap();
    assert_eq!(report.aborted.as_deref(), Some("the service died"));
    assert_eq!(report.error_count(), 0);
    assert!((5..100).contains(&report.sent), "{}", report.sent);
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn progress_counts_up_to_the_total() {
    let server = serve(|_, s| answer(s, OK));
    let last = AtomicU64::new(0);
    run_http(&load(server.addr, 20, 500.0, 3), &|| None, &|p| {
        last.fetch_max(p.done, Ordering::SeqCst);
        assert_eq!(p.total, 20);
    })
    .unwrap();
    assert_eq!(last.load(Ordering::SeqCst), 20);
    assert_eq!(server.requests.load(Ordering::SeqCst), 20);
}

#[test]
fn a_senseless_load_is_refused_before_anything_is_sent() {
    let server = serve(|_, s| answer(s, OK));
    for (rate, connections) in [(0.0, 1), (f64::NAN, 1), (-1.0, 1), (1.0, 0)] {
        assert!(run_http(&load(server.addr, 1, rate, connections), &|| None, &|_| {}).is_err());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ready(addr: SocketAddr, probe: Probe, timeout_ms: u64) -> Result<Duration, NotReady> {
    let check = ReadyCheck { addr, probe, timeout: Duration::from_millis(timeout_ms) };
    wait_ready(&check, &|| None)
}

#[test]
fn a_service_is_ready_when_it_answers_with_2xx() {
    let server = serve(|i, s| match i {
        0 | 1 => answer(s, "HTTP/1.1 503 Starting\r\nContent-Length: 0\r\n\r\n"),
        _ => answer(s, OK),
    });
    let waited = ready(server.addr, Probe::Http("/".into()), 5000).unwrap();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
}

#[test]
fn a_service_that_is_never_ready_is_an_error_with_its_last_answer() {
    let server = serve(|_, s| answer(s, "HTTP/1.1 503 Starting\r\nContent-Length: 0\r\n\r\n"));
    let error = ready(server.addr, Probe::Http("/".into()), 700).unwrap_err().to_string();
    assert!(error.contains("status 503") && error.contains("not ready after"), "{error}");
    let error = ready(unused_address(), Probe::Tcp, 300).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn tcp_readiness_is_an_accepted_connection() {
    let server = serve(|_, _| false);
    ready(server.addr, Probe::Tcp, 1000).unwrap();
}

#[test]
fn waiting_ends_when_the_service_died() {
    let check =
        ReadyCheck { addr: unused_address(), probe: Probe::Tcp, timeout: Duration::from_secs(60) };
    let error = wait_ready(&check, &|| Some("exited with status 1".into())).unwrap_err();
    assert!(error.to_string().contains("exited with status 1"), "{error}");
}

fn command(argv: &[&str], timeout_ms: u64) -> CommandLoad {
    CommandLoad {
        argv: argv.iter().map(|s| s.to_string()).collect(),
        addr: "10.77.0.10:6379".parse().unwrap(),
        requests: 300,
        workdir: None,
        timeout: Duration::from_millis(timeout_ms),
    }
}

#[test]
fn a_command_load_gets_address_and_number_of_requests() {
    let load = command(&["sh", "-c", "echo $0 $1 $2", "{host}", "-p{port}", "{requests}"], 5000);
    let report = run_command(&load, &|| None).unwrap();
    assert_eq!(report.error_count(), 0);
    assert_eq!(report.output_tail.trim(), "10.77.0.10 -p6379 300");
    assert_eq!(report.sent, 300);
    assert_eq!(report.latencies.quantile_ms(0.5), None);
}

#[test]
fn a_failing_load_command_is_an_error_with_its_last_line() {
    let load = command(&["sh", "-c", "echo fine; echo 'server gone' >&2; exit 3"], 5000);
    let report = run_command(&load, &|| None).unwrap();
    assert_eq!(report.errors.get(&ErrorKind::Command), Some(&1));
    let first = report.first_error.unwrap();
    assert!(first.contains("status 3") && first.contains("server gone"), "{first}");
}

#[test]
fn a_missing_load_command_is_named() {
    let error = run_command(&command(&["no-such-benchmark"], 100), &|| None).unwrap_err();
    assert!(error.contains("no-such-benchmark"), "{error}");
}

#[test]
fn a_load_command_that_hangs_is_killed_with_its_children() {
    let begin = Instant::now();
    let report =
        run_command(&command(&["sh", "-c", "sleep 60 & sleep 60"], 300), &|| None).unwrap();
    assert_eq!(report.errors.get(&ErrorKind::Command), Some(&1));
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn only_the_tail_of_a_talkative_command_is_kept() {
    let load = command(&["sh", "-c", "seq 1 200000; echo last"], 20_000);
    let report = run_command(&load, &|| None).unwrap();
    assert!(report.output_tail.len() <= 16 << 10);
    assert!(report.output_tail.ends_with("last\n"));
}
