//! What holds for every result, also for one out of a damaged file.

mod common;

use altaz_profile::results::*;
use altaz_profile::*;
use altaz_report::{
    MIN_WIDTH, TextOptions, compare_html, compare_json, compare_text, diff_html, diff_json,
    diff_text, profile_html, profile_text,
};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

fn number() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        Just(None),
        Just(Some(f64::NAN)),
        Just(Some(f64::INFINITY)),
        any::<f64>().prop_map(Some),
        (0.0..=1.0).prop_map(Some),
    ]
}

/// Any text, now and then with characters that terminals and browsers obey.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-eg-z/._-]{0,60}", /* never `inf` */
        any::<String>(),
        Just("\u{1b}[31m<b>\u{202e}\r\n&".to_owned())
    ]
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn component() -> impl Strategy<Value = Component> {
    (text(), any::<u64>(), any::<u64>(), any::<Option<u64>>(), number()).prop_map(
        |(name, functions, bytes, covered_bytes, share)| Component {
            name,
            functions,
            bytes,
            covered_bytes,
            share: share.unwrap_or(0.5),
        },
    )
}

fn layer() -> impl Strategy<Value = LayerResult> {
    let head = (any_of(Layer::ALL), any_of(Owner::ALL), any::<bool>(), any::<bool>());
    let counts = (any::<u64>(), any::<u64>(), any::<Option<u64>>(), any::<[u64; 3]>());
    let held = (number(), number(), number(), any::<u64>());
    let lists = proptest::collection::vec(component(), 0..4);
    (head, counts, (number(), number()), held, lists, any::<[u64; 3]>()).prop_map(
        |((name, owner, shared, moved), counts, complete, held, list, code)| LayerResult {
            ownership_moved: moved,
            covered_bytes: counts.2,
            coverage: complete.0,
            unseen: complete.1,
            windows: counts.3[0],
            lost_events: counts.3[1],
            rare_functions: counts.3[2],
            code: Some(CodeBytes { named: code[0], jit: code[1], unnamed: code[2] }),
            executed_bytes_per_request: None,
            held_out: held.0.map(|predicted| HeldOut {
                train_windows: counts.3[0],
                held_windows: counts.3[1],
                predicted,
                low: held.1.unwrap_or(0.0),
                high: held.2.unwrap_or(1.0),
                found: held.3,
            }),
            components_total: code[0],
            start_only: list.clone(),
            start_only_total: code[1],
            components: list,
            ..common::layer(name, owner, shared, (counts.0 / 4, counts.1, 0), (0.0, 0.0))
        },
    )
}

fn deployment() -> impl Strategy<Value = DeploymentResult> {
    let boundary = (text(), any_of(Layer::ALL), any::<Option<u32>>(), any::<Option<u32>>());
    let load = (text(), any::<[u64; 2]>(), number(), number());
    let lists = (
        proptest::collection::vec(layer(), 0..5),
        proptest::collection::vec(boundary, 0..4),
        proptest::collection::vec(text(), 0..3),
    );
    (text(), lists, load, any::<[u64; 4]>(), number(), any::<bool>()).prop_map(
        |(name, (layers, boundaries, notes), load, counts, share, available)| {
            let mut d = DeploymentResult::unavailable(name.clone(), load.0.clone());
            d.available = available;
            d.blind_spots = notes
                .iter()
                .map(|what| BlindSpot {
                    layer: layers.first().map(|l| l.name),
                    kind: name.clone(),
                    what: what.clone(),
                    bytes: Some(counts[0]),
                    functions: Some(counts[1]),
                })
                .collect();
            d.boundaries = boundaries
                .into_iter()
                .map(|(name, to, permitted, exercised)| Boundary {
                    entries: vec![BoundaryEntry::new(name.clone(), counts[2])],
                    requests: None,
                    permitted_entries: vec![],
                    guard: None,
                    name: if counts[3] % 2 == 0 { "syscall".into() } else { name },
                    from: Layer::App,
                    to,
                    permitted,
                    exercised,
                })
                .collect();
            d.load = Some(LoadSummary {
                description: load.0,
                requests: load.1[0],
                errors: load.1[1],
                p50_ms: load.2,
                p99_ms: load.3,
                rate: share,
                ready_s: load.2,
            });
            d.vap = Some(Vap {
                functions: counts[0],
                bytes: counts[1],
                covered_bytes: None,
                tenant_functions: counts[2],
                provider_functions: counts[3],
                tenant_bytes: counts[2],
                provider_bytes: counts[3],
                tenant_covered_bytes: Some(counts[0]),
                provider_covered_bytes: Some(counts[1]),
                tenant_share: share,
                tenant_share_covered: share,
                coverage: share,
                unseen: load.2,
            });
            d.hap = Some(Hap {
                exercised_functions: counts[1],
                exercised_bytes: counts[2],
                exercised_covered_bytes: Some(counts[3]),
                probed_functions: None,
                reachable_functions: None,
                coverage: load.3,
                unseen: share,
            });
            d.layers = layers;
            d.notes = notes;
            d
        },
    )
}

fn compare() -> impl Strategy<Value = CompareResult> {
    (text(), proptest::collection::vec(deployment(), 0..4)).prop_map(|(service, deployments)| {
        CompareResult { service, deployments, ..common::compare() }
    })
}

fn difference() -> impl Strategy<Value = diff::DiffResult> {
    let numbers = (number(), number(), number(), number(), any::<[u64; 4]>(), any::<i64>());
    (proptest::collection::vec(text(), 6), numbers, any_of(diff::Verdict::ALL)).prop_map(
        |(texts, (coverage, unseen, chance, within, counts, grown), verdict)| {
            let mut d = common::difference();
            let mut texts = texts.into_iter().cycle();
            let mut text = || texts.next().unwrap_or_default();
            (d.a.file, d.b.service, d.limits[0].a, d.limits[0].means) =
                (text(), text(), text(), text());
            (d.a.coverage, d.a.unseen, d.a.watched_s) = (coverage, unseen, within.unwrap_or(1.0));
            d.b.missed = chance.map(|at_most| diff::DiffMissed { estimate: at_most, at_most });
            d.b.inconclusive = unseen.is_none().then(&mut text);
            (d.functions.both, d.functions.grown_bytes) = (counts[0], grown);
            (d.functions.new.functions, d.functions.new.really_bytes) = (counts[1], counts[2]);
            d.layers[0].functions = d.functions;
            d.layers[0].components[0].name = text();
            for f in &mut d.new {
                (f.symbol, f.binary, f.verdict) = (text(), text(), verdict);
                (f.size, f.windows) = (counts[3], counts[0]);
                (f.expected_alike, f.missed_probability) = (chance, coverage);
            }
            d.boundaries[0].name = text();
            d.boundaries[0].new[1].name = text();
            d.posture[0].b = text();
            d
        },
    )
}

fn sane(text: &str, width: usize) -> Result<(), TestCaseError> {
    for line in text.lines() {
        prop_assert!(line.width() <= width, "{} columns of {width}: {line}", line.width());
        prop_assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        prop_assert!(word != "NaN" && word != "inf", "{text}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_text_keeps_its_width_and_prints_only_numbers_that_are_some(
        result in compare(),
        width in 0_usize..200,
    ) {
        let options = TextOptions { width, color: false };
        sane(&compare_text(&result, options), width.max(MIN_WIDTH))?;
        for d in result.deployments {
            sane(&profile_text(&common::profile(d), options), width.max(MIN_WIDTH))?;
        }
    }

    #[test]
    fn a_difference_keeps_its_width_and_its_page_its_marks(
        result in difference(),
        width in 0_usize..200,
        top in 0_usize..4,
    ) {
        let options = TextOptions { width, color: false };
        sane(&diff_text(&result, top, options), width.max(MIN_WIDTH))?;
        let page = diff_html(&result, top);
        prop_assert!(!page.contains("[31m<b>") && page.ends_with("</html>\n"), "{page}");
        let json = diff_json(&result).unwrap();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }

    #[test]
    fn every_page_and_json_is_made_without_a_panic_and_without_nan(result in compare()) {
        let json = compare_json(&result).unwrap();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        let mut pages = vec![compare_html(&result, &[])];
        pages.extend(result.deployments.into_iter().map(|d| profile_html(&common::profile(d), None)));
        for page in pages {
            // The name that terminals and browsers obey.
            prop_assert!(!page.contains("[31m<b>"), "{page}");
            for broken in ["width=\"-", "height=\"-", "=\"NaN", "=\"inf", "=\"-inf"] {
                prop_assert!(!page.contains(broken), "{broken} in {page}");
            }
        }
    }
}
