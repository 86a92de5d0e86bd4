//! What holds for every profile, also for one that no instrument would write.

mod common;

use altaz_assess::{Named, Options, assess, assess_repeats, diff};
use altaz_profile::*;
use common::profile;
use proptest::prelude::*;

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn unit() -> impl Strategy<Value = Unit> {
    let place = (any_of(&[Layer::App, Layer::Library, Layer::HostKernel]), 0_u64..40, 0..3_usize);
    let size = prop_oneof![8 => 0_u64..5_000, 1 => any::<u64>()];
    let seen = (any_of(Phase::ALL), any_of(Context::ALL), any_of(Evidence::ALL));
    let windows = proptest::collection::vec(0_u32..50, 1..12);
    (place, (size, any::<Option<u64>>()), seen, windows, "[a-z_]{0,12}").prop_map(
        |(
            (layer, offset, binary),
            (size, covered),
            (phase, context, evidence),
            windows,
            symbol,
        )| {
            Unit {
                layer,
                binary: ["kernel", "[tun]", "/bin/a"][binary].into(),
                build_id: None,
                symbol: symbol.into(),
                offset,
                size,
                covered,
                file: None,
                line: None,
                phase,
                context,
                first_window: windows[0],
                windows,
                evidence,
            }
        },
    )
}

fn units() -> impl Strategy<Value = Vec<Unit>> {
    proptest::collection::vec(unit(), 1..120)
}

fn share(value: Option<f64>) -> bool {
    value.is_none_or(|v| (0.0..=1.0).contains(&v))
}

proptest! {
    #[test]
    fn owners_layers_and_hap_add_up_and_no_share_leaves_0_to_1(units in units()) {
        let mut p = profile("runc");
        p.units = units;
        let Ok(d) = assess(&p, &Options::default()) else { return Ok(()) };
        let (vap, hap) = (d.vap.unwrap(), d.hap.unwrap());
        let by = |want: &dyn Fn(&results::LayerResult) -> bool| {
            d.layers.iter().filter(|l| want(l)).map(|l| l.functions).sum::<u64>()
        };
        prop_assert_eq!(vap.functions, by(&|_| true));
        prop_assert_eq!(vap.functions, vap.tenant_functions + vap.provider_functions);
        prop_assert_eq!(hap.exercised_functions, by(&|l| l.shared));
        prop_assert!(share(vap.tenant_share) && share(vap.coverage) && share(hap.coverage));
        for l in &d.layers {
            prop_assert!(share(l.coverage), "{:?}", l.coverage);
            prop_assert!(l.unseen.is_none_or(|u| u.is_finite() && u >= 0.0), "{:?}", l.unseen);
            prop_assert!(l.rare_functions <= l.functions);
            let listed: u64 = l.components.iter().map(|c| c.functions).sum();
            prop_assert!(listed <= l.functions);
            prop_assert!(l.components.iter().all(|c| share(Some(c.share))));
        }
        prop_assert!(!serde_json::to_string(&d).unwrap().contains("NaN"));
    }

    #[test]
    fn a_difference_accounts_for_every_function_of_both_and_is_the_reverse_of_its_reverse(
        a in units(),
        b in units(),
        kinds in any::<(bool, bool)>(),
    ) {
        let recording = |units, live| {
            let mut p = profile("runc");
            p.units = units;
            if live {
                p.manifest.instrument.kind = InstrumentKind::Live;
            }
            p
        };
        let (a, b) = (recording(a, kinds.0), recording(b, kinds.1));
        let named = |profile| Named { file: "file", profile };
        let Ok(there) = diff(named(&a), named(&b), Phase::Serve) else { return Ok(()) };
        let back = diff(named(&b), named(&a), Phase::Serve).unwrap();
        let sums = there.functions;
        prop_assert_eq!(there.a.functions, sums.both + sums.rebuilt + sums.gone.functions);
        prop_assert_eq!(there.b.functions, sums.both + sums.rebuilt + sums.new.functions);
        prop_assert_eq!(sums.new.functions, there.new.len() as u64);
        for set in [sums.new, sums.gone] {
            let parts = set.really + set.may_have_been_missed + set.background;
            prop_assert_eq!(set.functions, parts + set.not_observable + set.undetermined);
        }
        prop_assert_eq!(&there.gone, &back.new);
        prop_assert_eq!(&there.new, &back.gone);
        prop_assert!(!serde_json::to_string(&there).unwrap().contains("NaN"));
        let itself = diff(named(&a), named(&a), Phase::Serve).unwrap();
        prop_assert!(itself.new.is_empty() && itself.gone.is_empty() && itself.limits.len() <= 2);
        prop_assert!(!itself.check.anything_new());
    }

    #[test]
    fn figures_do_not_depend_on_the_order_of_rows(units in units(), seed in any::<u64>()) {
        let mut p = profile("runc");
        p.units = units;
        let before = assess(&p, &Options::default());
        // Any permutation; rows of one function may carry different sizes in these made-up
        // profiles, which no writer produces, so sizes are made equal first.
        for u in &mut p.units {
            (u.size, u.covered) = (100, Some(40));
            u.symbol = "f".into();
        }
        let sorted = assess(&p, &Options::default());
        prop_assert_eq!(before.is_ok(), sorted.is_ok());
        p.units.sort_by_key(|u| u.offset.wrapping_mul(seed | 1) ^ u64::from(u.first_window));
        prop_assert_eq!(assess(&p, &Options::default()), sorted);
    }

    #[test]
    fn a_recording_is_its_own_perfect_repeat(units in units()) {
        let mut p = profile("runc");
        p.units = units;
        let Ok(d) = assess_repeats(&[&p, &p], &Options::default()) else { return Ok(()) };
        let repeats = d.repeats.unwrap();
        prop_assert_eq!(repeats.min_all, Some(1.0));
        prop_assert!(repeats.min_steady.is_none_or(|s| s == 1.0));
        prop_assert_eq!(repeats.runs[0], repeats.runs[1]);
    }
}
