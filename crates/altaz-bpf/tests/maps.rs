//! Maps read back: many entries, few, and more than one bucket's worth at a time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::Ordering;

use altaz_bpf::map::{Hash, MmapArray};

#[test]
#[ignore = "needs root"]
fn all_entries_of_a_hash_are_read_and_summed_over_cpus() {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let cpus = 1 + cpus.trim().rsplit(['-', ',']).next().unwrap().parse::<u64>().unwrap();
    for entries in [1, 7, 600, 20_000] {
        let (shared, spread) =
            (Hash::<2>::shared("t", entries).unwrap(), Hash::<2>::per_cpu("t", entries).unwrap());
        assert_eq!(shared.all().unwrap(), []);
        for i in 0..entries {
            shared.set([i, !i], i.into()).unwrap();
            spread.set([i, !i], i.into()).unwrap();
        }
        assert!(shared.set([entries, 0], 1).is_err(), "room for one more than {entries}");
        let expected: Vec<_> = (0..entries).map(|i| ([i, !i], u64::from(i))).collect();
        let sorted = |map: &Hash<2>| {
            let mut all = map.all().unwrap();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&shared), expected);
        let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k, v * cpus)).collect();
        assert_eq!(sorted(&spread), expected);
        assert!(shared.remove([0, !0]).unwrap() && !shared.remove([0, !0]).unwrap());
        assert_eq!(shared.get([0, !0]).unwrap(), None);
    }
}

#[test]
#[ignore = "needs root"]
fn an_array_is_zero_writable_and_ends() {
    let array = MmapArray::new("t", 1000, 3).unwrap();
    assert_eq!((array.len(), array.entries().count()), (1000, 1000));
    assert!(array.entries().flatten().all(|w| w.load(Ordering::Relaxed) == 0));
    array.entry(999).unwrap()[2].store(5, Ordering::Relaxed);
    assert_eq!(array.entries().last().unwrap()[2].load(Ordering::Relaxed), 5);
    assert!(array.entry(1000).is_none() && array.entry(usize::MAX).is_none());
}
