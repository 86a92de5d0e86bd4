//! A planted sample of published CVEs against a real recording of the lab's Debian kernel: each one's
//! state is known from what the kernel is and did, and `altaz triage` must find it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altaz_e2e::{altaz_in, repository};
use altaz_profile::{Layer, Profile, file};
use serde_json::Value;

/// CVE, state, status, and the reason why this must be so.
const SAMPLE: [(&str, &str, &str, &str); 18] = [
    (
        "CVE-2026-68118",
        "traversed",
        "affected",
        "tcp_check_req runs in every handshake; no 6.12 has the fix",
    ),
    (
        "CVE-2026-74342",
        "traversed",
        "affected",
        "no function is known, and others of fs/kernfs/dir.c run",
    ),
    ("CVE-2026-68132", "not-traversed", "under_investigation", "do_thaw_all is SysRq's"),
    (
        "CVE-2025-40190",
        "not-traversed",
        "under_investigation",
        "nothing here stores attributes in inodes of their own",
    ),
    (
        "CVE-2026-68426",
        "traversed",
        "affected",
        "validate_xmit_xfrm runs for every packet sent; only its place shows that it is net/xfrm's",
    ),
    ("CVE-2026-74560", "not-traversed", "under_investigation", "net/xdp/xsk.c is built in"),
    (
        "CVE-2026-74537",
        "not-traversed",
        "under_investigation",
        "bluetooth: no list of all functions proves it away",
    ),
    ("CVE-2026-46153", "module-not-loaded", "under_investigation", "8021q is a module"),
    ("CVE-2026-74542", "module-not-loaded", "under_investigation", "netfs is a module"),
    (
        "CVE-2026-46314",
        "unmapped",
        "under_investigation",
        "no function is known, and the files of these are only estimated",
    ),
    ("CVE-2022-48785", "fixed", "fixed", "in mainline before 6.12"),
    ("CVE-2026-64109", "fixed", "fixed", "backported to 6.12.92; unix_stream_read_generic runs"),
    ("CVE-2026-64572", "fixed", "fixed", "backported to 6.12.101; fib_table_insert runs"),
    ("CVE-2026-43383", "fixed", "fixed", "backported to 6.12.78; tcp_v4_send_reset runs"),
    ("CVE-2025-39723", "fixed", "fixed", "backported to 6.12.44; iter_file_splice_write runs"),
    ("CVE-2026-46300", "fixed", "fixed", "backported to 6.12.91; skb_try_coalesce runs"),
    ("CVE-2026-53395", "not-present", "not_affected", "introduced after 6.12"),
    ("CVE-2026-64082", "not-present", "not_affected", "riscv's"),
];

fn lab_kernel() -> Profile {
    file::read(&repository().join("tests/fixtures/lab-kernel.altaz")).unwrap()
}

#[test]
fn each_of_a_planted_sample_has_its_state_on_the_labs_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = repository().join("tests/fixtures");
    let path = |name: &str| fixtures.join(name).display().to_string();
    let (cna, functions) = (path("feeds/kernel-cna"), path("feeds/functions.jsonl"));
    altaz_in(dir.path(), &["feeds", "--feeds", "s", "import", &cna, &functions]).expect(0, &[]);
    let profile = path("lab-kernel.altaz");
    let ran = altaz_in(dir.path(), &["triage", &profile, "--feeds", "s", "-o", "json"]);
    ran.expect(0, &[]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let findings = json["profiles"][0]["findings"].as_array().unwrap();
    let mut wrong = Vec::new();
    for (id, state, status, reason) in SAMPLE {
        let all: Vec<&Value> = findings.iter().filter(|f| f["id"] == id).collect();
        let [f] = &all[..] else { panic!("{id} is found {} times", all.len()) };
        if f["state"] != state || f["status"] != status {
            wrong.push(format!("{id}: {} ({}), not {state}: {reason}", f["state"], f["why"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(findings.len(), SAMPLE.len(), "nothing else is in the feeds");
    let note = findings.iter().find(|f| f["state"] == "not-traversed").unwrap();
    assert!(note["why"].as_str().unwrap().contains("the recording saw 99."), "{note}");
}

/// The reasons above that are about what ran: a fix that is there counts, whatever ran.
#[test]
fn functions_of_backported_fixes_ran_in_this_recording() {
    let units = lab_kernel().units;
    let ran = |name: &str| units.iter().any(|u| u.layer == Layer::HostKernel && &*u.symbol == name);
    for name in [
        "unix_stream_read_generic",
        "fib_table_insert",
        "tcp_v4_send_reset",
        "iter_file_splice_write",
        "skb_try_coalesce",
        "tcp_check_req",
        "validate_xmit_xfrm",
    ] {
        assert!(ran(name), "{name}");
    }
    for name in ["do_thaw_all", "xsk_build_skb", "ext4_xattr_inode_update_ref"] {
        assert!(!ran(name), "{name}");
    }
}
