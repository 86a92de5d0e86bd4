//! Programs whose functions are all probed do what they did before, and what they entered is known.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests run programs directly and fail by panicking"
)]

mod common;

use common::{PrivateCopy, Target, compile, own_children, run};
use std::process::Command;

/// Recursion, function pointers, floating point, threads, signals on an alternate stack, setjmp, and a jump table.
const PROGRAM: &str = r#"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define KEEP __attribute__((noinline, noclone))
static jmp_buf env; static volatile int faults; static volatile long shared;
KEEP int leaf(int x) { return x ^ 0x55; }
KEEP long fib(long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
KEEP double wave(double x) { double s = 0; for (int i = 1; i < 9; i++) s += sin(x * i) / i; return s; }
KEEP float mix(float a, float b, float c) { return a * b + c; }
KEEP unsigned hash(const unsigned char *p, size_t n) { unsigned h = 2166136261u; while (n--) h = (h ^ *p++) * 16777619u; return h; }
KEEP const char *name(int k) { switch (k) { case 0: return "zero"; case 1: return "one"; case 2: return "two";
  case 3: return "three"; case 4: return "four"; case 5: return "five"; case 6: return "six"; default: return "many"; } }
KEEP void on_fault(int s) { (void)s; faults++; siglongjmp(env, 1); }
KEEP int poke(volatile int *p) { return *p + 1; }
KEEP void thrower(int n) { if (n == 0) longjmp(env, 7); char big[256]; memset(big, n, sizeof big); thrower(n - 1); shared += big[n]; }
KEEP int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
KEEP void *work(void *arg) { long k = (long)arg; for (int i = 0; i < 1000; i++) __atomic_add_fetch(&shared, leaf(i) & k, __ATOMIC_SEQ_CST); return 0; }
KEEP int never(int x) { return x * 77 + leaf(x); }
typedef struct { long a, b, c, d; } four;
KEEP four spread(long a, long b, long c, long d, long e, long f, long g, long h) { four r = { a + h, b * g, c - f, d ^ e }; return r; }
int main(int argc, char **argv) {
  int total = 0; for (int i = 0; i < 1000; i++) total += leaf(i);
  printf("%d %ld %.12f %.7g %s %s\n", total, fib(18), wave(0.7), mix(1.5f, 2.25f, -3.f), name(argc), name(argc + 5));
  int a[500]; for (int i = 0; i < 500; i++) a[i] = (i * 7919) % 501; qsort(a, 500, sizeof *a, compare);
  printf("%08x\n", hash((unsigned char *)a, sizeof a));
  four f = spread(1, 2, 3, 4, 5, 6, 7, 8); printf("%ld %ld %ld %ld\n", f.a, f.b, f.c, f.d);
  static char stack[65536]; stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack }; sigaltstack(&alt, 0);
  struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER }; sigaction(SIGSEGV, &sa, 0);
  for (int i = 0; i < 5; i++) if (sigsetjmp(env, 1) == 0) poke((int *)0x10);
  if (setjmp(env) == 0) thrower(20);
  pthread_t t[4]; for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, work, (void *)(i + 1)); for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
  printf("%d %ld\n", faults, (long)shared);
  if (argc > 100) return never(argc);
  fflush(stdout); return 3 - 3;
}
"#;

#[test]
#[ignore = "needs root"]
fn a_program_with_all_functions_probed_prints_the_same_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("o0", &["-O0", "-g"][..]),
        ("o2", &["-O2"]),
        ("cet", &["-O2", "-fcf-protection=full", "-fstack-protector-all"]),
        ("o3", &["-O3", "-march=native", "-fomit-frame-pointer"]),
        ("static", &["-O2", "-static"]),
        ("fixed", &["-O1", "-no-pie", "-fno-plt"]),
    ] {
        let flags = [flags, &["-pthread", "-lm"]].concat();
        let path = compile(dir.path(), name, PROGRAM, &flags);
        let before = run(&mut Command::new(&path)).stdout;
        for stepped in [false, true] {
            let filter = own_children();
            let target = Target::arm(&path, &filter, stepped);
            assert_eq!(target.armed.left_out(), []);
            let after = run(&mut Command::new(&path)).stdout;
            assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&after), "{name}");
            let counts = target.counts();
            let all = target.binary.functions.len();
            println!("{name}: {} of {all} functions entered", counts.len());
            let probe = |name: &str| {
                let index = target.index(name);
                target.points.probes.iter().find(|p| p.function == index)
            };
            let probed = |name: &str| probe(name).is_some();
            for (function, calls) in
                [("leaf", 5000), ("work", 4), ("thrower", 21), ("poke", 5), ("main", 1)]
            {
                let Some(point) = probe(function) else { continue };
                let start = target.binary.functions.get(point.function as usize).unwrap().offset;
                if function == "poke" && point.file_offset > start {
                    continue; // it faults on its way to the probe
                }
                let counted = counts.get(function).copied().unwrap_or(0);
                if point.repeats {
                    assert!(counted >= calls, "{name}: {function}: {counted}");
                } else {
                    assert_eq!(counted, calls, "{name}: {function}");
                }
            }
            assert!(probed("fib") && probed("thrower") && probed("main"));
            assert!(!stepped || probed("leaf") && probed("poke"), "{name}: single-stepping helps");
            assert!(counts.contains_key("fib"), "{name}"); // compilers unroll its recursion
            assert_eq!(counts.get("never"), None);
            assert_eq!(target.armed.misses().unwrap().unwrap_or(0), 0);
        }
    }
}

/// What Python checks itself here: hashes, regular expressions, big numbers, threads, exceptions, processes, JSON, floats.
const PYTHON: &str = r#"
import hashlib, json, re, threading, subprocess, sys, math, random, zlib, struct, collections, decimal, itertools
random.seed(5)
data = bytes(random.randrange(256) for _ in range(20000))
out = [hashlib.sha256(data).hexdigest(), hashlib.blake2b(data).hexdigest(), zlib.crc32(data), hash((1, 2.5, 3))]
assert zlib.decompress(zlib.compress(data)) == data
out.append(len(re.findall(r'(\w+)\s+(\w+)', 'the quick brown fox ' * 200)))
out.append(str(pow(3, 5000, 10**300 + 7)))
out.append(json.dumps(json.loads(json.dumps({'a': [1, 2.5, None, True] * 50, 'b': 'é' * 30})), sort_keys=True)[-40:])
box = collections.Counter()
def work(k):
    for i in range(300): box[i * k % 7] += 1
threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
[t.start() for t in threads]; [t.join() for t in threads]
out.append(sorted(box.items()))
def deep(n):
    if n == 0: raise KeyError('bottom')
    try: return deep(n - 1)
    finally: box['f'] += 1
try: deep(50)
except KeyError as e: out.append(repr(e))
out.append([math.sin(x / 7) for x in range(20)]); out.append(str(decimal.Decimal(2).sqrt()))
out.append(struct.pack('<dIq', 1.5, 7, -9).hex())
out.append(list(itertools.islice(itertools.permutations(range(5)), 7)))
out.append(subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout.decode())
for line in out: print(line)
"#;

#[test]
#[ignore = "needs root"]
fn python_with_its_libc_probed_computes_the_same() {
    let copy = PrivateCopy::of("/usr/bin/python3");
    let python = |_: ()| run(copy.command().args(["-S", "-c", PYTHON])).stdout;
    let before = python(());
    for stepped in [false, true] {
        let filter = own_children();
        let targets = copy.arm(&filter, stepped);
        assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&python(())));
        let entered: usize = targets.iter().map(|t| t.counts().len()).sum();
        println!("stepped {stepped}: {entered} functions entered");
        assert!(entered > 1000);
        assert!(targets.iter().all(|t| t.armed.left_out().is_empty()));
    }
}

#[test]
#[ignore = "needs root"]
fn compressors_and_checksums_pass_their_own_checks() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bytes = std::fs::read("/usr/bin/python3").unwrap();
    std::fs::write(&data, &bytes[..200_000]).unwrap();
    let filter = own_children();
    for tool in ["/bin/gzip", "/usr/bin/sha256sum", "/usr/bin/sort", "/usr/bin/xz", "/bin/sed"] {
        let copy = PrivateCopy::of(tool);
        let work = |command: &mut Command| -> Vec<u8> {
            match tool {
                "/bin/gzip" => run(command.args(["-c", "-n", "-5"]).arg(&data)).stdout,
                "/usr/bin/xz" => run(command.args(["-c", "-0"]).arg(&data)).stdout,
                "/bin/sed" => {
                    run(command.args(["-E", "s/([a-z]+)_(x?y*)/\\2-\\1/g"]).arg(&data)).stdout
                }
                _ => run(command.arg(&data)).stdout,
            }
        };
        let before = work(&mut Command::new(tool));
        let targets = copy.arm(&filter, true);
        let after = work(&mut copy.command());
        assert_eq!(before.len(), after.len(), "{tool}");
        assert!(before == after, "{tool}: another output");
        assert!(targets.iter().map(|t| t.counts().len()).sum::<usize>() > 20, "{tool}");
    }
}
