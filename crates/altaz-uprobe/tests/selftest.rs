//! The self-test on the running kernel, and what that kernel makes of instructions that are not on the allowlist.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altaz_uprobe::form::{Access, Form, Kind, Speed};
use altaz_uprobe::instruction::{Class, classify};
use altaz_uprobe::selftest::{Outcome, try_instructions};
use altaz_uprobe::{Allowed, Method, SelfTest, UprobeError};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One self-test at a time in this process: its children inherit the links of all the others, whose probes would stay
/// where they were taken off until these children end.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
#[ignore = "needs root"]
fn the_allowlist_is_executed_rightly_and_counted_exactly_under_probes() {
    let _alone = alone();
    let test = SelfTest::run(Path::new("/sys")).unwrap();
    for tried in &test.tried {
        println!(
            "{:<32} {}{}",
            tried.text,
            tried.outcome,
            if tried.crossing { ", across pages" } else { "" }
        );
    }
    let wrong: Vec<_> = test.disagreed().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(test.refused().count(), 0, "{:#?}", test.refused().collect::<Vec<_>>());
    assert!(test.tried.len() >= 50);
    assert_eq!(test.counted, test.executions);
    assert_eq!(test.executions, 32 * test.tried.len() as u64);
    assert!(test.allowed().len() >= 50, "{} forms", test.allowed().len());
    assert_eq!(test.allowed().len(), Allowed::assumed().len());
    let speed = |kind| test.allowed().speed(Form { kind, access: Access::Registers });
    for kind in [Kind::Push, Kind::CondJump, Kind::Jump, Kind::Call, Kind::Nop] {
        assert_eq!(speed(kind), Some(Speed::Emulated), "{kind:?}");
    }
    assert_eq!(speed(Kind::Arithmetic), Some(Speed::Stepped));
    println!(
        "{} examples of {} forms, {} executions in {:?}; a hit costs {:?}",
        test.tried.len(),
        test.allowed().len(),
        test.executions,
        test.took,
        test.hit
    );
    // An exception and a program cannot be had for less, and a hit that took longer would be a mistake in measuring.
    assert!(test.hit > Duration::from_nanos(200) && test.hit < Duration::from_millis(1));
}

#[test]
#[ignore = "needs root"]
fn probes_on_perf_events_give_the_same_result() {
    let _alone = alone();
    let multi = SelfTest::run_by(Method::Multi, Path::new("/sys")).unwrap();
    let perf = SelfTest::run_by(Method::PerfEvents, Path::new("/sys")).unwrap();
    println!("one link {:?}, perf events {:?}", multi.took, perf.took);
    let forms = |test: &SelfTest| test.allowed().iter().map(|(form, _)| form).collect::<Vec<_>>();
    assert_eq!(forms(&multi), forms(&perf));
    assert!(perf.tried.iter().all(|tried| multi.tried.contains(tried)));
    assert_eq!(perf.counted, perf.executions);
}

/// Instructions that kernels are known, or suspected, to treat wrongly; the second word is what a processor must have.
const BAD: &[(&str, &str, &[u8])] = &[
    ("vpbroadcastb ymm1,eax", "avx512bw", &[0x62, 0xf2, 0x7d, 0x28, 0x7a, 0xc8]),
    ("vmovdqa64 ymm2,[rsp]", "avx512vl", &[0x62, 0xf1, 0xfd, 0x28, 0x6f, 0x14, 0x24]),
    ("vzeroupper", "avx", &[0xc5, 0xf8, 0x77]),
    ("vmovdqu ymm1,[rbx]", "avx", &[0xc5, 0xfe, 0x6f, 0x0b]),
    ("vpxor ymm0,ymm0,ymm0", "avx2", &[0xc5, 0xfd, 0xef, 0xc0]),
    ("andn rax,rcx,rdx", "bmi1", &[0xc4, 0xe2, 0xf0, 0xf2, 0xc2]),
    ("mulx rax,rcx,[rsi]", "bmi2", &[0xc4, 0xe2, 0xf3, 0xf6, 0x06]),
    ("shlx rax,rcx,rdx", "bmi2", &[0xc4, 0xe2, 0xe9, 0xf7, 0xc1]),
    ("xchg rax,r8", "", &[0x49, 0x90]),
    ("xchg rax,rcx", "", &[0x48, 0x91]),
    ("xchg [rbx],rax", "", &[0x48, 0x87, 0x03]),
    ("lock add dword [rbx],1", "", &[0xf0, 0x83, 0x03, 0x01]),
    ("lock cmpxchg [rbx],rcx", "", &[0xf0, 0x48, 0x0f, 0xb1, 0x0b]),
    ("pushfq", "", &[0x9c]),
    ("lahf", "", &[0x9f]),
    ("nop, five bytes", "", &[0x0f, 0x1f, 0x44, 0x00, 0x00]),
    ("lea rsi,[rsi+0], five bytes", "", &[0x48, 0x8d, 0x74, 0x26, 0x00]),
    ("nop, ten bytes", "", &[0x66, 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00]),
    ("cs nop, ten bytes", "", &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00]),
    ("mov eax,eax", "", &[0x89, 0xc0]),
    ("mov rax,rax", "", &[0x48, 0x89, 0xc0]),
    ("std", "", &[0xfd]),
    ("leave", "", &[0xc9]),
    ("push qword [rbx]", "", &[0xff, 0x33]),
    ("pop qword [rbx]", "", &[0x8f, 0x03]),
    ("xlatb", "", &[0xd7]),
    ("popcnt rax,rcx", "", &[0xf3, 0x48, 0x0f, 0xb8, 0xc1]),
    ("bsr rax,rcx", "", &[0x48, 0x0f, 0xbd, 0xc1]),
];

#[test]
fn nothing_of_it_is_on_the_allowlist() {
    for (text, _, bytes) in BAD {
        let class = classify(bytes, 0x1000);
        assert!(matches!(class, Class::Refused(_)), "{text}: {class:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_test_sees_what_the_kernel_gets_wrong() {
    let _alone = alone();
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag: &str| flag.is_empty() || flags.split_whitespace().any(|f| f == flag);
    let here = BAD.iter().filter(|(_, needs, _)| has(needs));
    let bad: Vec<(&str, &[u8])> = here.map(|(text, _, bytes)| (*text, *bytes)).collect();
    let tried = try_instructions(&bad, Path::new("/sys")).unwrap();
    assert_eq!(tried.len(), bad.len());
    for one in &tried {
        println!("{:<32} {}", one.text, one.outcome);
        assert_eq!(one.form, None, "{}", one.text);
    }
    // Whatever later kernels repair: under single-step `pushf` stores a flag that nobody else has set.
    let pushf = tried.iter().find(|t| t.text == "pushfq").unwrap();
    assert!(matches!(pushf.outcome, Outcome::Disagreed(_)), "{}", pushf.outcome);
}

#[test]
#[ignore = "needs root"]
fn an_instruction_that_kills_without_a_probe_is_no_finding_about_probes() {
    let _alone = alone();
    let error = try_instructions(&[("ud2", &[0x0f, 0x0b])], Path::new("/sys")).unwrap_err();
    assert!(matches!(error, UprobeError::SelfTestBroken { signal: 4 }), "{error}");
}
