//! The load generator inside a private network: what it reaches there, nobody else does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use altaz::load::{
    CommandLoad, ErrorKind, HttpLoad, LoadReport, Probe, ReadyCheck, run_command, run_http,
    wait_ready,
};
use altaz_lab::NetNs;

fn load(addr: SocketAddr) -> LoadReport {
    let load = HttpLoad {
        addr,
        method: "GET".into(),
        path: "/".into(),
        content_type: None,
        body: Vec::new(),
        rate: 100.0,
        connections: 2,
        requests: 20,
        timeout: Duration::from_secs(2),
    };
    run_http(&load, &|| None, &|_| {}).unwrap()
}

fn serve(listener: TcpListener) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while stream.read(&mut chunk).is_ok_and(|n| n > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
    }
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn load_and_readiness_check_reach_only_the_private_network() {
    let netns = NetNs::new().unwrap();
    let addr = netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(listener));
        addr
    });
    let inside = netns
        .spawn_thread("load", move || {
            let check = ReadyCheck { addr, probe: Probe::Tcp, timeout: Duration::from_secs(5) };
            wait_ready(&check, &|| None).unwrap();
            load(addr)
        })
        .unwrap();
    let report = inside.join().unwrap().unwrap();
    assert_eq!((report.sent, report.error_count()), (20, 0), "{report:?}");
    assert!(TcpStream::connect(addr).is_err(), "from outside nobody listens there");
    assert_eq!(load(addr).errors.get(&ErrorKind::Connect), Some(&20));
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_load_command_runs_in_the_private_network() {
    let netns = NetNs::new().unwrap();
    let command = CommandLoad {
        argv: ["cat", "/proc/self/net/dev"].map(String::from).to_vec(),
        addr: "10.77.0.10:80".parse().unwrap(),
        requests: 1,
        workdir: None,
        timeout: Duration::from_secs(5),
    };
    let report = netns.spawn_thread("load", move || run_command(&command, &|| None)).unwrap();
    let report = report.join().unwrap().unwrap().unwrap();
    let interfaces: Vec<&str> = report
        .output_tail
        .lines()
        .filter_map(|line| line.split_once(':').map(|(name, _)| name.trim()))
        .collect();
    assert_eq!(interfaces, ["lo"], "{}", report.output_tail);
}
