//! Mutations of the plugin's stream, for `ALTAZ_FUZZ_SECONDS` seconds (`make fuzz`): no panic, and
//! what is accepted comes back as it was when it is written again.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use altaz_testkit::{fuzz_loop, fuzz_seconds};
use altaz_wire::{
    Block, Count, FromPlugin, Hello, PAGE, Snapshot, SplitCount, ToPlugin, WIRE_VERSION,
};

fn written(message: &FromPlugin) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes).unwrap();
    bytes
}

fn stream() -> Vec<u8> {
    let hello = Hello { wire_version: WIRE_VERSION, api_version: 4, vcpus: 2 };
    let mut bytes = written(&FromPlugin::Hello(hello));
    for id in 0..3u32 {
        let snapshot = Snapshot {
            id,
            begin_ns: 1 + u64::from(id),
            end_ns: 2 + u64::from(id),
            guests: vec![0x1000; id as usize],
            slots: vec![0, 0x2000],
            pages: vec![(u128::from(id) << 64, vec![0x90; PAGE].into())],
            blocks: (0..20)
                .map(|n| Block {
                    guest: (n % 2) as u8,
                    ring: 3,
                    vaddr: 0x7fff_0000_0000 + n * 16,
                    size: 11,
                    page: 9,
                    next_page: 10,
                })
                .collect(),
            counts: (0..20).map(|block| Count { block, count: u64::MAX }).collect(),
            split: vec![SplitCount { block: 0, slot: 1, count: 3 }; 5],
            ..Snapshot::default()
        };
        bytes.extend(written(&FromPlugin::Snapshot(snapshot)));
    }
    bytes
}

fn config() -> Vec<u8> {
    let mut bytes = Vec::new();
    ToPlugin::Config { split_pages: (0..50).map(|n| u128::MAX - n).collect() }
        .write(&mut bytes)
        .unwrap();
    ToPlugin::Window { id: 7 }.write(&mut bytes).unwrap();
    bytes
}

fn read_all(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(message) = FromPlugin::read(&mut rest) {
        let again = written(&message);
        assert_eq!(FromPlugin::read(&mut again.as_slice()).unwrap(), message);
    }
    let mut rest = bytes;
    while ToPlugin::read(&mut rest).is_ok() {}
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_plugin_stream() {
    fuzz_loop("plugin_stream", &[stream(), config()], fuzz_seconds(), read_all);
}
