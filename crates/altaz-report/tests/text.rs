//! What people read on a terminal.

mod common;

use altaz_profile::results::{Barrier, EscapePath};
use altaz_profile::{Layer, Owner};
use altaz_report::{TextOptions, compare_text, diff_text, profile_text};
use unicode_width::UnicodeWidthStr;

fn options(width: usize) -> TextOptions {
    TextOptions { width, color: false }
}

#[test]
fn four_deployments_side_by_side_on_a_terminal_of_100_columns() {
    insta::assert_snapshot!(compare_text(&common::compare(), options(100)));
}

#[test]
fn four_deployments_side_by_side_on_a_terminal_of_80_columns() {
    insta::assert_snapshot!(compare_text(&common::compare(), options(80)));
}

#[test]
fn one_profile_on_a_terminal_of_100_columns() {
    insta::assert_snapshot!(profile_text(&common::profile(common::runc()), options(100)));
}

#[test]
fn one_profile_on_a_terminal_of_80_columns_stays_inside() {
    for deployment in [common::runc(), common::runsc(), common::microvm()] {
        let text = profile_text(&common::profile(deployment), options(80));
        assert!(text.lines().all(|l| l.width() <= 80), "{text}");
    }
}

#[test]
fn a_live_profile_has_contexts_apart_sizes_instead_of_covered_bytes_and_posture() {
    let mut report = common::profile(common::live());
    report.instrument.kind = altaz_profile::InstrumentKind::Live;
    report.instrument.detail = "function tracer, three windows a function".into();
    insta::assert_snapshot!(profile_text(&report, options(100)));
}

#[test]
fn live_deployments_side_by_side_show_whole_sizes() {
    let mut result = common::compare();
    result.deployments = vec![common::live(), common::live()];
    let text = compare_text(&result, options(100));
    assert!(!text.contains("covered"), "{text}");
    let line = text.lines().rfind(|l| l.starts_with("runc ")).unwrap();
    assert!(line.contains("402.0"), "{line}");
}

#[test]
fn a_difference_on_a_terminal_of_100_columns() {
    insta::assert_snapshot!(diff_text(&common::difference(), 10, options(100)));
}

#[test]
fn a_difference_that_allows_no_conclusion_says_why_and_sorts_nothing() {
    let mut result = common::difference();
    result.a.inconclusive = Some("it has no calibration".into());
    (result.a.coverage, result.a.unseen, result.a.missed) = (None, None, None);
    for f in &mut result.new {
        f.verdict = altaz_profile::results::diff::Verdict::Undetermined;
        (f.missed_probability, f.expected_alike) = (None, None);
    }
    let text = diff_text(&result, 1, options(80));
    assert!(text.contains("A says nothing about what it has not: it has no calibration."));
    assert!(!text.contains("really new in B\n") && text.contains("new, no conclusion"), "{text}");
    assert!(text.contains("2 more (-o json lists all)"), "{text}");
    assert!(text.lines().all(|l| l.width() <= 80), "{text}");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let colored = TextOptions { width: 100, color: true };
    for (with, without) in [
        (compare_text(&common::compare(), colored), compare_text(&common::compare(), options(100))),
        (
            profile_text(&common::profile(common::runsc()), colored),
            profile_text(&common::profile(common::runsc()), options(100)),
        ),
    ] {
        assert!(with.contains("\x1b[1;36m") && with.contains("\x1b[0m"));
        assert!(!without.contains('\x1b'));
        assert_eq!(strip(&with), without);
    }
}

#[test]
fn owners_stand_out_in_colour() {
    let text = compare_text(&common::compare(), TextOptions { width: 100, color: true });
    let line = text.lines().find(|l| l.contains("sandbox-kernel")).unwrap();
    insta::assert_snapshot!(line.replace('\x1b', "ESC"));
}

#[test]
fn figures_that_cannot_be_known_are_dashes() {
    let mut d = common::runc();
    for layer in &mut d.layers {
        (layer.covered_bytes, layer.coverage, layer.unseen) = (None, None, None);
        (layer.held_out, layer.code) = (None, None);
    }
    d.load = None;
    d.calibration = None;
    d.blind_spots.clear();
    d.boundaries[0].permitted = None;
    d.boundaries[0].exercised = None;
    if let (Some(vap), Some(hap)) = (&mut d.vap, &mut d.hap) {
        (vap.covered_bytes, vap.tenant_covered_bytes, vap.provider_covered_bytes) =
            (None, None, None);
        (vap.coverage, vap.unseen) = (None, None);
        (hap.exercised_covered_bytes, hap.coverage, hap.unseen) = (None, None, None);
    }
    insta::assert_snapshot!(profile_text(&common::profile(d), options(100)));
}

#[test]
fn exercised_probed_and_reachable_are_three_lines_that_nobody_adds() {
    let mut d = common::runc();
    if let Some(hap) = &mut d.hap {
        (hap.probed_functions, hap.reachable_functions) = (Some(2_044), Some(11_207));
    }
    let text = profile_text(&common::profile(d), options(100));
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("HAP ")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn nothing_available_is_said_and_nothing_is_compared() {
    let mut result = common::compare();
    result.deployments.retain(|d| !d.available);
    result.basis = None;
    insta::assert_snapshot!(compare_text(&result, options(100)));
}

#[test]
fn names_from_a_profile_cannot_drive_the_terminal() {
    let mut d = common::runc();
    d.name = "runc\x1b[2J\u{202e}".into();
    d.notes.push("line\nbreak\x07".into());
    d.layers[0].components[0].name = "/bin/\x1b]0;title\x07".into();
    let text = profile_text(&common::profile(d.clone()), options(100));
    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text}");
    let mut result = common::compare();
    result.deployments = vec![d];
    let text = compare_text(&result, options(100));
    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text}");
}

/// A text without its colours.
fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    out + rest
}

#[test]
fn escape_paths_show_their_barriers_in_order_and_what_bars_nobody() {
    let mut report = common::profile(common::runc());
    let last = Barrier {
        name: "syscall".into(),
        from: Layer::Vmm,
        to: Layer::HostKernel,
        owner: Owner::Provider,
        shared: true,
        functions: Some(801),
        bytes: Some(150_000),
        covered_bytes: None,
        permitted: Some(373),
        exercised: Some(24),
        interfaces: vec![],
        guard: Some("qemu runs as user 0, 41 capabilities, no system call filter".into()),
        open: true,
        tenant_held: false,
    };
    let first = Barrier {
        name: "port-io + mmio".into(),
        from: Layer::GuestKernel,
        to: Layer::Vmm,
        shared: false,
        functions: None,
        bytes: None,
        permitted: None,
        exercised: Some(7),
        guard: None,
        open: false,
        ..last.clone()
    };
    let barriers = vec![first, last];
    report.deployment.escape_paths =
        vec![EscapePath { name: "guest-kernel → vmm → host-kernel".into(), barriers }];
    let text = profile_text(&report, options(100));
    let at = text.find("Escape paths").unwrap();
    let flat = text[at..].split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "Escape paths guest-kernel → vmm → host-kernel: 2 barriers, one after the other; 1 \
         in a hostile tenant's way 1. vmm by port-io + mmio: 7 entry points exercised of – permitted; \
         code not seen 2. host-kernel by syscall: 24 entry points exercised of 373 permitted; 801 \
         functions, 150.0 kB traversed; qemu runs as user 0, 41 capabilities, no system call filter; \
         no barrier: the side before it has these rights already";
    assert!(flat.starts_with(expected), "{flat}");
}
