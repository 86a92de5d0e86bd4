//! `altaz record` where the kernel traces functions: in the lab. A service under load is recorded
//! completely, and whatever happens to altaz, the kernel's tracing is afterwards as it was before.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altaz_e2e::live::qemu_in_turn;
use altaz_e2e::{Ran, altaz_program, command, repository};

/// How often altaz is killed; `ALTAZ_KILLS` says otherwise.
const KILLS: u32 = 4;

/// Values of the lines that begin with a name.
fn values<'a>(ran: &'a Ran, name: &str) -> Vec<&'a str> {
    let lines = ran.stdout.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(n, _)| *n == name).map(|(_, value)| value).collect()
}

#[test]
#[ignore = "needs the lab"]
fn a_service_is_recorded_and_killing_altaz_leaves_nothing_behind() {
    let kills = std::env::var("ALTAZ_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let altaz = altaz_program();
    let put = |from: String, to: &str| ["--put".to_owned(), format!("{from}:{to}")];
    let tests = repository().join("tests/e2e");
    let dir = tempfile::tempdir().unwrap();
    let mut lab = command(&altaz);
    lab.arg("--qemu")
        .arg(qemu_in_turn(dir.path()))
        .args(["lab", "run"])
        .args(put(altaz.display().to_string(), "/usr/local/bin/altaz"))
        .args(put(tests.join("src/bpf-ids.pl").display().to_string(), "/bpf-ids.pl"))
        .args(put(tests.join("tests/lab/record.sh").display().to_string(), "/record.sh"))
        .args(["--", "env", &format!("KILLS={kills}"), "sh", "/record.sh"]);
    let ran: Ran = lab.output().unwrap().into();
    let one = |name: &str| match values(&ran, name)[..] {
        [value] => value.to_owned(),
        ref other => panic!("{name}: {other:?} in {ran:#?}"),
    };
    assert_eq!(one("record"), "0", "{ran:#?}");
    let functions: u32 = one("functions").parse().unwrap();
    assert!(functions > 300, "{ran:#?}");
    assert_eq!(one("lost"), "1", "{ran:#?}");
    assert_eq!(one("report"), "0", "{ran:#?}");
    assert_eq!(one("calibration"), "1,000 1,000", "{ran:#?}");
    assert_eq!(one("clean"), "1", "{ran:#?}");
    let killed = values(&ran, "killed");
    assert_eq!(killed.len(), kills as usize, "{ran:#?}");
    assert!(killed.iter().all(|k| *k == "1"), "{ran:#?}");
    assert!(one("full-lines").parse::<u32>().unwrap() > 5000, "{ran:#?}");
    assert_eq!(one("in-full"), "1", "{ran:#?}");
    assert_eq!(one("other"), "0", "somebody else's tracing: {ran:#?}");
    assert_eq!(one("other-lost"), "0", "{ran:#?}");
    assert!(one("other-events").parse::<u32>().unwrap() > 20, "{ran:#?}");
    assert_eq!(one("service"), "PONG", "{ran:#?}");
    println!("{functions} functions; {kills} kills, each cleaned up after");
}
