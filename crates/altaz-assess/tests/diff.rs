//! Two profiles against each other: what is found, and what may be concluded.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use altaz_assess::{AssessError, Named, diff};
use altaz_profile::results::diff::*;
use altaz_profile::*;
use common::{Rows, profile};

fn of(rows: Rows) -> Profile {
    let mut p = profile("runc");
    p.units = rows.take();
    p
}

/// 300 functions of the kernel in every window, 4 in one.
fn before() -> Rows {
    Rows::new()
        .seen_always(Layer::HostKernel, "kernel", 300)
        .seen_in(Layer::HostKernel, "kernel", 2, &[10])
        .seen_in(Layer::HostKernel, "kernel", 2, &[30])
}

fn with(rows: impl IntoIterator<Item = Unit>) -> Profile {
    of(before().and(rows))
}

fn compared(a: &Profile, b: &Profile) -> DiffResult {
    let named = |file, profile| Named { file, profile };
    diff(named("a.altaz", a), named("b.altaz", b), Phase::Serve).unwrap()
}

fn verdicts(list: &[DiffFunction]) -> Vec<Verdict> {
    list.iter().map(|f| f.verdict).collect()
}

fn always() -> Vec<Unit> {
    Rows::from(5_000).seen_always(Layer::HostKernel, "kernel", 1).take()
}

fn late() -> Vec<Unit> {
    Rows::from(6_000).seen_in(Layer::HostKernel, "kernel", 2, &[33]).take()
}

#[test]
fn what_a_would_have_seen_is_really_new_and_the_rest_may_have_been_missed() {
    let (a, b) = (of(before()), with(always().into_iter().chain(late())));
    let r = compared(&a, &b);
    assert_eq!((r.schema.as_str(), r.a.functions, r.b.functions), ("altaz.diff/1", 304, 307));
    assert_eq!(verdicts(&r.new), [Verdict::Really, Verdict::MayBeMissed, Verdict::MayBeMissed]);
    assert_eq!((r.new[0].symbol.as_str(), r.new[0].windows), ("function_5001", 40));
    assert!(r.new[0].expected_alike.unwrap() <= 0.05);
    let sums = r.functions;
    assert_eq!((sums.both, sums.new.functions, sums.new.really, sums.new.bytes), (304, 3, 1, 300));
    assert_eq!((sums.new.may_have_been_missed, sums.gone.functions), (2, 0));
    assert_eq!((r.check.new_functions, r.check.anything_new()), (1, true));
    let missed = r.a.missed.unwrap();
    assert!(0.0 < missed.estimate && missed.estimate < missed.at_most, "{missed:?}");
    assert!(missed.at_most > 2.0);
    assert!(r.a.unseen.unwrap() > 0.0 && r.a.coverage.unwrap() < 1.0);
    assert_eq!(r.limits, []);
    // The other way round it is gone, and a gate has nothing to say.
    let back = compared(&b, &a);
    assert_eq!(verdicts(&back.gone), verdicts(&r.new));
    assert_eq!((back.new.len(), back.check.anything_new()), (0, false));
}

#[test]
fn layers_and_components_add_up() {
    let mut tun = Rows::from(7_000).seen_always(Layer::HostKernel, "[tun]", 3).take();
    tun.extend(Rows::from(8_000).seen_always(Layer::App, "/srv/app", 2).take());
    let r = compared(&of(before()), &with(tun));
    let names: Vec<_> = r.layers.iter().map(|l| (l.name, l.functions.new.functions)).collect();
    assert_eq!(names, [(Layer::App, 2), (Layer::HostKernel, 3)]);
    let kernel = &r.layers[1];
    assert_eq!(kernel.components.len(), 1, "where nothing differs nothing is listed");
    assert_eq!(kernel.components[0].name, "[tun]");
    assert_eq!(kernel.components[0].functions.new.really, 3);
    assert_eq!(r.functions.new.functions, 5);
}

#[test]
fn without_a_sound_calibration_of_a_nothing_is_called_new_and_the_gate_knows() {
    let (mut a, b) = (of(before()), with(always()));
    a.manifest.calibration = None;
    let r = compared(&a, &b);
    assert_eq!(verdicts(&r.new), [Verdict::Undetermined]);
    assert_eq!((r.new[0].missed_probability, r.new[0].expected_alike), (None, None));
    assert_eq!((r.a.coverage, r.a.unseen, r.a.missed), (None, None, None));
    assert_eq!((r.check.anything_new(), r.check.undetermined), (false, 1));
    assert!(r.limits[0].means.contains("A may have missed it, for it has no calibration"));
    // What B's calibration is like does not matter to what B saw.
    let (mut b, a) = (b, of(before()));
    b.manifest.calibration = None;
    assert_eq!(verdicts(&compared(&a, &b).new), [Verdict::Really]);
}

#[test]
fn lost_events_shorten_what_was_watched_and_are_said() {
    let (mut a, b) = (of(before()), with(always()));
    for window in &mut a.manifest.windows[1..=30] {
        window.lost_events = 2;
    }
    let r = compared(&a, &b);
    assert_eq!(r.a.lost_events, 60);
    assert!((r.a.watched_s - 5.0).abs() < 1e-9);
    assert_eq!(verdicts(&r.new), [Verdict::MayBeMissed], "five seconds are too few");
    assert!(r.limits[0].means.contains("60 events in 30"), "{:?}", r.limits);
    a.manifest.windows.iter_mut().for_each(|w| w.lost_events = 1);
    let r = compared(&a, &b);
    assert_eq!(verdicts(&r.new), [Verdict::Undetermined]);
    assert!(r.a.inconclusive.unwrap().contains("only 0 of its 40 windows"));
}

#[test]
fn what_the_idle_machine_explained_in_a_is_not_called_new() {
    let mut background = always();
    background[0].context = Context::Background;
    let r = compared(&with(background), &with(always()));
    assert_eq!(verdicts(&r.new), [Verdict::Background]);
    assert!(!r.check.anything_new());
}

#[test]
fn another_build_is_rebuilt_and_neither_new_nor_gone() {
    let (a, mut b) = (of(before()), of(before()));
    for unit in &mut b.units {
        unit.build_id = Some("beef".into());
        unit.offset += 64;
        unit.size += u64::from(unit.symbol.ends_with('7'));
    }
    b.manifest.host.kernel = "6.12.1".into();
    let r = compared(&a, &b);
    let sums = r.functions;
    assert_eq!((sums.both, sums.rebuilt, sums.new.functions, sums.gone.functions), (0, 304, 0, 0));
    assert_eq!((sums.resized, sums.grown_bytes), (30, 30));
    assert!(r.limits.iter().any(|l| l.about == "kernel" && l.means.contains("`rebuilt`")));
    assert!(!r.check.anything_new());
}

#[test]
fn what_differs_in_the_recordings_is_said_and_nothing_is_refused_for_it() {
    let (a, mut b) = (of(before()), of(before()));
    b.manifest.deployment = "qemu".into();
    b.manifest.image_id = "other".into();
    b.manifest.load = None;
    b.manifest.host.cpu = "other".into();
    let r = compared(&a, &b);
    let about: Vec<&str> = r.limits.iter().map(|l| l.about.as_str()).collect();
    assert_eq!(about, ["load", "service image", "deployment", "CPU"]);
}

#[test]
fn a_phase_that_one_profile_has_not_recorded_is_refused_with_those_that_it_has() {
    let (a, mut b) = (of(before()), of(before()));
    b.units.iter_mut().for_each(|u| u.phase = Phase::Start);
    let named = |file, profile| Named { file, profile };
    let error = diff(named("a.altaz", &a), named("b.altaz", &b), Phase::Serve).unwrap_err();
    assert!(matches!(error, AssessError::EmptyPhase { .. }));
    let text = error.to_string();
    assert!(text.contains("b.altaz holds nothing") && text.contains("it does in start"), "{text}");
}

/// As the live instrument records it: three windows at most, task context.
fn live(mut p: Profile) -> Profile {
    p.manifest.instrument.kind = InstrumentKind::Live;
    p.manifest.blind_spots.push(BlindSpot {
        layer: Some(Layer::HostKernel),
        kind: "not-traceable".into(),
        what: "functions that cannot be traced".into(),
        bytes: None,
        functions: Some(5_120),
    });
    for unit in &mut p.units {
        unit.windows.truncate(3);
        unit.context = Context::Task;
        unit.covered = None;
    }
    p
}

#[test]
fn what_only_the_exact_instrument_saw_may_not_be_traceable_and_is_never_new() {
    let (exact, alive) = (with(always()), live(of(before())));
    let r = compared(&alive, &exact);
    assert_eq!(verdicts(&r.new), [Verdict::NotObservable]);
    assert!(r.limits.iter().any(|l| l.about == "instrument"));
    let spot = r.limits.iter().find(|l| l.about == "not-traceable").unwrap();
    assert!(spot.means.contains("5120 functions"), "{}", spot.means);
    assert!(!r.check.anything_new());
    // The other way round the exact instrument would have seen it.
    let r = compared(&of(before()), &live(with(always())));
    assert!(matches!(r.new[0].verdict, Verdict::Really | Verdict::MayBeMissed), "{:?}", r.new[0]);
}

#[test]
fn a_layer_that_a_live_recording_did_not_watch_is_not_observable_in_it() {
    let app = Rows::from(9_000).seen_always(Layer::App, "/srv/app", 2).take();
    let r = compared(&live(of(before())), &live(with(app)));
    assert_eq!(verdicts(&r.new), [Verdict::NotObservable, Verdict::NotObservable]);
}

#[test]
fn a_live_function_is_new_by_how_soon_it_was_seen_and_one_seen_late_is_not() {
    let short = |mut p: Profile| {
        // A millisecond each for the first ten windows, then half a minute each.
        let mut now = 0;
        for (i, w) in p.manifest.windows.iter_mut().enumerate() {
            w.start_ns = now;
            now += if i <= 10 { 1_000_000 } else { 30_000_000_000 };
            w.end_ns = now;
        }
        live(p)
    };
    let late = Rows::from(6_000).seen_in(Layer::HostKernel, "kernel", 1, &[20, 21, 22]).take();
    let r = compared(&short(of(before())), &short(with(always().into_iter().chain(late))));
    assert_eq!(verdicts(&r.new), [Verdict::Really, Verdict::MayBeMissed], "{:?}", r.new);
    assert!(r.limits.iter().filter(|l| l.about == "three windows").count() == 2);
}

#[test]
fn functions_of_interrupts_are_listed_and_do_not_fail_a_gate() {
    let mut irq = always();
    irq[0].context = Context::Hardirq;
    let r = compared(&of(before()), &with(irq));
    assert_eq!(verdicts(&r.new), [Verdict::Really]);
    assert_eq!((r.functions.new.only_in_interrupts, r.check.new_functions), (1, 0));
}

fn boundary(permitted: &[(&str, bool)], entries: &[(&str, u64)]) -> Boundary {
    Boundary {
        name: "syscall".into(),
        from: Layer::App,
        to: Layer::HostKernel,
        permitted: Some(permitted.len() as u32),
        exercised: Some(entries.len() as u32),
        entries: entries.iter().map(|(n, c)| BoundaryEntry::new(*n, *c)).collect(),
        requests: None,
        permitted_entries: permitted
            .iter()
            .map(|&(name, conditional)| PermittedEntry { name: name.into(), conditional })
            .collect(),
        guard: None,
    }
}

#[test]
fn boundaries_say_what_is_permitted_anew_and_leave_what_is_called_anew_open() {
    let (mut a, mut b) = (of(before()), of(before()));
    a.manifest.boundaries = vec![boundary(
        &[("read", false), ("socket", true), ("splice", false), ("mount", false)],
        &[("read", 9), ("write", 2)],
    )];
    b.manifest.boundaries = vec![boundary(
        &[("read", false), ("socket", false), ("splice", false), ("bpf", false)],
        &[("read", 12), ("splice", 4), ("bpf", 1)],
    )];
    let r = compared(&a, &b);
    let boundary = &r.boundaries[0];
    let new: Vec<_> = boundary.new.iter().map(|e| (e.name.as_str(), e.verdict)).collect();
    assert_eq!(new, [("bpf", Verdict::Really), ("splice", Verdict::Undetermined)]);
    assert_eq!(boundary.gone.len(), 1);
    let permits: Vec<_> = boundary.permits.iter().map(|p| (p.name.as_str(), p.wider())).collect();
    assert_eq!(permits, [("bpf", true), ("mount", false), ("socket", true)]);
    assert_eq!(r.check.new_entries, 2, "bpf counts once");
    // Without names the number still grows.
    for p in [&mut a, &mut b] {
        p.manifest.boundaries[0].permitted_entries.clear();
    }
    b.manifest.boundaries[0].permitted = Some(9);
    let r = compared(&a, &b);
    assert_eq!((r.boundaries[0].permitted, r.check.new_entries), ((Some(4), Some(9)), 5));
    // What was not determined in A is not new in B.
    a.manifest.boundaries[0].exercised = None;
    a.manifest.boundaries[0].entries.clear();
    assert_eq!(compared(&a, &b).boundaries[0].new, []);
}

fn posture() -> Posture {
    Posture {
        role: "app".into(),
        comm: "nginx".into(),
        tgid: 1,
        uid: 1000,
        capabilities: vec!["cap_chown".into()],
        bounding: vec![],
        namespaces: vec!["net".into(), "user".into()],
        uid_map: vec![],
        no_new_privs: true,
        seccomp: "filter".into(),
        lsm: vec!["apparmor:a (enforce)".into()],
        devices: vec![],
    }
}

#[test]
fn posture_changes_have_a_direction_and_wider_ones_fail_a_gate() {
    type Change = fn(&mut Posture);
    let changes: [(&str, Direction, Change); 8] = [
        ("capabilities", Direction::Wider, |p| p.capabilities = vec!["cap_bpf".into()]),
        ("capabilities", Direction::Narrower, |p| p.capabilities.clear()),
        ("own namespaces", Direction::Wider, |p| p.namespaces.truncate(1)),
        ("own namespaces", Direction::Narrower, |p| p.namespaces.push("pid".into())),
        ("no_new_privs", Direction::Wider, |p| p.no_new_privs = false),
        ("seccomp", Direction::Wider, |p| p.seccomp = "none".into()),
        ("user", Direction::Wider, |p| p.uid = 0),
        ("security modules", Direction::Changed, |p| p.lsm.clear()),
    ];
    for (what, direction, change) in changes {
        let (mut a, mut b) = (of(before()), of(before()));
        a.manifest.posture = vec![posture()];
        b.manifest.posture = vec![Posture { tgid: 99, ..posture() }];
        assert_eq!(compared(&a, &b).posture, [], "a process has another id in every run");
        change(&mut b.manifest.posture[0]);
        let r = compared(&a, &b);
        let found: Vec<_> = r.posture.iter().map(|p| (p.what.as_str(), p.direction)).collect();
        assert_eq!(found, [(what, direction)]);
        assert_eq!(r.check.anything_new(), direction == Direction::Wider);
        b.manifest.posture.clear();
        let r = compared(&a, &b);
        assert_eq!(r.posture, []);
        assert!(r.limits.iter().any(|l| l.about == "posture" && l.means.starts_with("Only A")));
    }
}

#[test]
fn the_json_reads_back_and_holds_the_promised_keys() {
    let r = compared(&of(before()), &with(always()));
    let json = serde_json::to_value(&r).unwrap();
    for path in [
        "/schema",
        "/phase",
        "/a/file",
        "/a/missed/at_most",
        "/b/inconclusive",
        "/limits",
        "/functions/new/really",
        "/layers/0/components",
        "/new/0/verdict",
        "/new/0/expected_alike",
        "/gone",
        "/boundaries",
        "/posture",
        "/check/new_functions",
    ] {
        assert!(json.pointer(path).is_some(), "{path} is missing in {json:#}");
    }
    assert_eq!(json["new"][0]["verdict"], "really");
    assert_eq!(serde_json::from_value::<DiffResult>(json).unwrap(), r);
}
