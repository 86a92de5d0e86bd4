//! `altaz watch` on a machine whose kernel has no function tracer to offer: news as lines of JSON,
//! metrics, and the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use altaz_e2e::live::Process;
use altaz_e2e::{altaz_program, command};
use serde_json::Value;

/// Waits, and makes one system call more, `sched_rr_get_interval`, when it gets SIGUSR1.
const SERVICE: &str = r#"
    my $buffer = "x" x 64;
    $SIG{USR1} = sub { syscall(148, 0, $buffer); };
    while (1) { syscall(146, 0); select(undef, undef, undef, 0.02); }
"#;

/// Sends a signal by its name.
fn signal(pid: &str, name: &str) {
    assert!(command("kill").args(["-s", name, pid]).status().unwrap().success());
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[ignore = "needs root"]
fn a_new_system_call_is_told_within_a_second_and_counted() {
    let service = Process::start("perl", &["-e", SERVICE]);
    let mut altaz = command(altaz_program())
        .args(["watch", "--partial", "--syscalls=always", "--quiet-time=3s"])
        .args(["--metrics=127.0.0.1:0", "-p", &service.pid()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut news = BufReader::new(altaz.stdout.take().unwrap()).lines();
    let mut messages = BufReader::new(altaz.stderr.take().unwrap()).lines();
    let address = messages
        .find_map(|m| Some(m.unwrap().strip_prefix("metrics at http://")?.to_owned()))
        .unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    assert!(metrics(address).contains("altaz_learned{service=\"perl\"} 0"));
    let mut next = || -> Value { serde_json::from_str(&news.next().unwrap().unwrap()).unwrap() };
    let learned = next();
    assert_eq!(learned["kind"], "learned", "{learned}");

    let begin = Instant::now();
    signal(&service.pid(), "USR1");
    // What the signal itself brings may come first.
    let new = std::iter::repeat_with(&mut next).find(|n| n["entry"] == "sched_rr_get_interval");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let new = new.unwrap();
    assert_eq!((&new["kind"], &new["boundary"]), (&"entry".into(), &"syscall".into()), "{new}");
    assert_eq!(new["pid"].to_string(), service.pid(), "{new}");
    assert_eq!((&new["comm"], &new["departs_from"]), (&"perl".into(), &"learned".into()));
    assert!(new["time"].as_str().unwrap().ends_with('Z'), "{new}");
    let counted = || metrics(address).contains("\naltaz_learned{service=\"perl\"} 1\n");
    while !counted() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{}", metrics(address));
    }
    assert!(!metrics(address).contains("new_entries_total{service=\"perl\"} 0\n"));

    signal(&altaz.id().to_string(), "INT");
    let rest: Vec<String> = messages.map(Result::unwrap).collect();
    assert_eq!(altaz.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(rest.iter().any(|m| m.contains("new entry points")), "{rest:#?}");
}
