//! Mutations of service specs and of the kernel's histograms, for `ALTAZ_FUZZ_SECONDS` seconds each
//! (`make fuzz`): no panic, and every problem of a spec has its place in the text.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::path::Path;

use altaz_deploy::ServiceSpec;
use altaz_deploy::boundary::parse_histogram;
use altaz_testkit::{fuzz_loop, fuzz_seconds};

fn spec(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count() + 1;
    if let Err(error) = ServiceSpec::parse(&text, Path::new("/nowhere/spec.toml")) {
        assert!(!error.problems.is_empty() && !error.to_string().is_empty());
        for problem in &error.problems {
            assert!(problem.line <= lines, "line {} of {lines}", problem.line);
        }
    }
}

const OCI: &str = r#"
name = "oci"
[image]
oci = "image.tar"
[service]
command = ["/srv/a", "--b"]
port = 8080
user = "www-data"
[service.env]
A = "b"
[ready]
tcp = true
port = 9
[load]
requests = 5
command = ["redis-benchmark", "-h", "{host}", "-p", "{port}", "-n", "{requests}"]
[layers]
language-runtime = ["/opt/node/bin/node", "/usr/lib/**/*.so"]
"#;

const SYSTEM_CALLS: &str = "# event histogram
#
# trigger info: hist:keys=id:vals=hitcount:sort=hitcount:size=8192 [active]
#

{ id:        231 } hitcount:          1
{ id:         -1 } hitcount:         40

Totals:
    Hits: 41
    Entries: 2
    Dropped: 2
";

const MMIO: &str = "{ gpa: 4273991264, type: 0, len: 4 } hitcount: 9
{ port:       0x3f8, rw:          1, size:          1 } hitcount: 7\n";

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_service_specs() {
    let demo = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo").join(name);
        std::fs::read(path).unwrap()
    };
    let seeds = [demo("web.toml"), demo("redis.toml"), OCI.as_bytes().to_vec()];
    fuzz_loop("service_spec", &seeds, fuzz_seconds(), spec);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_boundary_histograms() {
    let seeds = [SYSTEM_CALLS, MMIO].map(|text| text.as_bytes().to_vec());
    fuzz_loop("histogram", &seeds, fuzz_seconds(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let histogram = parse_histogram(&text);
        assert!(histogram.rows.len() <= text.lines().count());
    });
}
