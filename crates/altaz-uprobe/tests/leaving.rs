//! Taking probes off while a program runs, and what is left when altaz is killed: nothing.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests run programs directly and fail by panicking"
)]

mod common;

use altaz_symbols::Binary;
use altaz_uprobe::{Allowed, Armed, Method, Options, Points, ProbedFile, Reason, probe_points};
use common::{Target, compile, own_children, proof, tracefs};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Answers each number it reads with the result of the same long computation.
const SERVER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#define KEEP __attribute__((noinline, noclone))
KEEP unsigned step(unsigned x) { return x * 1664525u + 1013904223u; }
KEEP unsigned walk(unsigned x, int depth) { return depth ? walk(step(x), depth - 1) + 1 : x; }
KEEP unsigned rare(unsigned x) { return walk(x, 3) ^ 0xabcdefu; }
KEEP unsigned serve(unsigned x) { unsigned s = 0; for (int i = 0; i < 200; i++) s += walk(x + i, 20); return x == 77 ? rare(s) : s; }
int main(void) { unsigned x; while (scanf("%u", &x) == 1) { printf("%u\n", serve(x)); fflush(stdout); } return 0; }
"#;

fn answer(x: u32) -> u32 {
    let walk = |x: u32, depth: u32| {
        (0..depth).fold(x, |x, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    };
    let walked = |x: u32, depth: u32| walk(x, depth).wrapping_add(depth);
    let s = (0..200).fold(0u32, |s, i| s.wrapping_add(walked(x.wrapping_add(i), 20)));
    if x == 77 { walked(s, 3) ^ 0x00ab_cdef } else { s }
}

struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(path: &Path) -> Self {
        let mut command = Command::new(path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn ask(&mut self, x: u32) {
        writeln!(self.input, "{x}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim().parse::<u32>().unwrap(), answer(x));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many of these places of a file hold a breakpoint in a process.
fn breakpoints(pid: u32, path: &Path, points: &Points) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|l| l.ends_with(path.to_str().unwrap()) && l.contains("r-xp")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let hex = |s| u64::from_str_radix(s, 16).unwrap();
        let (start, end, offset) = (hex(start), hex(end), hex(words[2]));
        for point in &points.probes {
            if point.file_offset >= offset && point.file_offset - offset < end - start {
                let mut byte = [0];
                memory.read_exact_at(&mut byte, start + point.file_offset - offset).unwrap();
                found += usize::from(byte[0] == 0xcc);
            }
        }
    }
    found
}

#[test]
#[ignore = "needs root"]
fn probes_are_taken_off_a_running_program_until_none_is_left() {
    take_off(Method::Multi, &["-O1", "-static"]);
}

#[test]
#[ignore = "needs root"]
fn probes_on_perf_events_are_taken_off_as_well() {
    take_off(Method::PerfEvents, &["-O1"]);
}

fn take_off(method: Method, flags: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "server", SERVER, flags);
    let filter = own_children();
    let mut server = Server::start(&path);
    server.ask(1);
    let mut target = Target::arm_by(method, &path, &filter, true);
    assert_eq!(target.armed.method(), method);
    let all = target.armed.armed();
    let pid = server.child.id();
    assert_eq!(breakpoints(pid, &path, &target.points), all);
    server.ask(2);
    let news = target.armed.news();
    assert!(news.iter().any(|n| n.function == target.index("step") && n.count == 4000), "{news:?}");
    let first = news[0].first.unwrap();
    assert_eq!(first.tgid, pid);

    let hit: Vec<u32> = news.iter().map(|n| n.function).collect();
    let result = target.armed.disarm(&hit).unwrap();
    assert_eq!((result.disarmed, result.armed), (hit.len(), all - hit.len()));
    assert_eq!(breakpoints(pid, &path, &target.points), all - hit.len());
    // What the server did between its answer and its next wait was counted until just now.
    std::thread::sleep(Duration::from_millis(50));
    target.armed.news();
    server.ask(3);
    let again: Vec<u32> = target.armed.news().iter().map(|n| n.function).collect();
    assert!(
        again.iter().all(|f| !hit.contains(f)),
        "probes that were taken off were hit: {again:?}"
    );
    server.ask(77);
    let news: Vec<u32> = target.armed.news().iter().map(|n| n.function).collect();
    assert!(news.contains(&target.index("rare")), "what remained is still counted: {news:?}");

    let everything: Vec<u32> = (0..target.binary.functions.len() as u32).collect();
    let result = target.armed.disarm(&everything).unwrap();
    assert_eq!(result.armed, 0);
    assert_eq!(breakpoints(pid, &path, &target.points), 0);
    target.armed.news();
    server.ask(4);
    server.ask(77);
    assert_eq!(target.armed.news(), []);
    assert_eq!(target.armed.disarm(&everything).unwrap().disarmed, 0);
}

#[test]
#[ignore = "needs root"]
fn probes_in_one_process_are_no_other_ones_business_until_they_are_widened() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "server", SERVER, &["-O1", "-static"]);
    let filter = own_children();
    let (mut one, mut other) = (Server::start(&path), Server::start(&path));
    one.ask(1);
    other.ask(1);
    let mut target = Target::arm_in(one.child.id(), &path, &filter);
    let pids = [one.child.id(), other.child.id()];
    let places = |target: &Target| pids.map(|pid| breakpoints(pid, &path, &target.points));
    let all = target.armed.armed();
    assert_eq!(places(&target), [all, 0]);
    // Whoever begins is spared, too.
    let late = Server::start(&path);
    assert_eq!(breakpoints(late.child.id(), &path, &target.points), 0);
    other.ask(2);
    assert_eq!(target.armed.hits().count(), 0, "the filter lets the other one pass as well");
    one.ask(2);
    let step = target.index("step");
    let steps = |target: &Target| target.armed.hits().find(|h| h.function == step).unwrap().count;
    assert_eq!(steps(&target), 4000);

    target.armed.disarm(&[target.index("walk")]).unwrap();
    assert_eq!(places(&target), [all - 1, 0], "what remains stays in one process");
    target.armed.widen().unwrap();
    assert_eq!(places(&target), [all - 1, all - 1]);
    one.ask(3);
    other.ask(3);
    assert_eq!(steps(&target), 3 * 4000);
}

#[test]
#[ignore = "needs root"]
fn a_program_that_changes_while_it_is_asked_stays_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "server", SERVER, &["-O2"]);
    let filter = own_children();
    let mut server = Server::start(&path);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                server.ask(asked);
                asked += 1;
            }
            asked
        });
        for _ in 0..10 {
            let mut target = Target::arm(&path, &filter, true);
            for function in ["step", "walk", "serve", "main"] {
                let index = target.index(function);
                target.armed.disarm(&[index]).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let asked = asking.join().unwrap();
        assert!(asked > 50, "only {asked} answers while probes came and went");
        println!("{asked} right answers while probes came and went");
    });
}

#[test]
#[ignore = "needs root"]
fn one_instruction_that_the_kernel_refuses_does_not_cost_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        "asm(\".globl vector\\n.type vector,@function\\nvector: vpxor %ymm0,%ymm0,%ymm0\\n ret\\n\"
        \".size vector,.-vector\\n\");";
    let source = format!("{SERVER}{refused}");
    let path = compile(dir.path(), "server", &source, &["-O1", "-static"]);
    let filter = own_children();
    let mut server = Server::start(&path); // instructions are looked at where the file is mapped
    server.ask(1);
    let file = ProbedFile::open(&path).unwrap();
    let bytes = file.read().unwrap();
    let binary = Binary::parse(&bytes).unwrap();
    let allowed = proof().allowed().clone();
    let options = Options { allowed, stepped: true, excluded: vec![] };
    let mut points = probe_points(&bytes, &binary, &options);
    let all = points.probes.len();
    let vector = binary.functions.iter().position(|f| f.name == "vector").unwrap();
    let wrong = points.probes.iter_mut().find(|p| p.function as usize == vector).unwrap();
    wrong.file_offset = binary.functions.get(vector).unwrap().offset; // not what was chosen
    let armed = Armed::attach(file, &points, proof(), &filter, None, Path::new("/sys")).unwrap();
    assert_eq!(armed.armed(), all - 1);
    let out: Vec<_> = armed.left_out().iter().map(|l| (l.function as usize, l.reason)).collect();
    assert_eq!(out, [(vector, Reason::KernelRefused)]);
    server.ask(2);
    assert!(armed.hits().count() > 3);
}

#[test]
#[ignore = "needs root"]
fn a_killed_altaz_leaves_no_probe() {
    tracefs();
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "server", SERVER, &["-O1"]);
    let bytes = std::fs::read(&path).unwrap();
    let binary = Binary::parse(&bytes).unwrap();
    let options = Options { allowed: Allowed::assumed(), stepped: true, excluded: vec![] };
    let points = probe_points(&bytes, &binary, &options);
    let mut server = Server::start(&path);
    server.ask(1);
    let pid = server.child.id();
    let tool = std::env::current_exe().unwrap().parent().unwrap().join("../examples/arm");
    assert!(tool.exists(), "not built: cargo test without --test builds examples too");
    for round in 0..3 {
        let mut command = Command::new(&tool);
        command.args(["--stepped", "--tgid", &pid.to_string()]).arg(&path);
        let mut arm = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(arm.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.into_iter().any(|line| line == "armed"), "it did not arm");
        assert!(breakpoints(pid, &path, &points) > 5);
        server.ask(round);
        arm.kill().unwrap(); // SIGKILL
        arm.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while breakpoints(pid, &path, &points) > 0 {
            assert!(Instant::now() < until, "probes are left after 5 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.ask(round + 100);
    }
}
