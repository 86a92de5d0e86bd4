//! The self-test on the running kernel, and what that kernel makes of instructions that are not on the allowlist.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altaz_uprobe::form::{Access, Form, Kind, Speed};
use altaz_uprobe::instruction::{Class, Refusal, classify};
use altaz_uprobe::selftest::{Outcome, try_instructions};
use altaz_uprobe::{Allowed, SelfTest};
use std::path::Path;

#[test]
#[ignore = "needs root"]
fn the_allowlist_is_executed_rightly_and_counted_exactly_under_probes() {
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
    assert!(test.allowed().len() >= 50, "{} forms", test.allowed().len());
    assert_eq!(test.allowed().len(), Allowed::assumed().len());
    let speed = |kind| test.allowed().speed(Form { kind, access: Access::Registers });
    for kind in [Kind::Push, Kind::CondJump, Kind::Jump, Kind::Call, Kind::Nop] {
        assert_eq!(speed(kind), Some(Speed::Emulated), "{kind:?}");
    }
    assert_eq!(speed(Kind::Arithmetic), Some(Speed::Stepped));
    println!(
        "{} examples of {} forms, {} executions in {:?}",
        test.tried.len(),
        test.allowed().len(),
        test.executions,
        test.took
    );
}
