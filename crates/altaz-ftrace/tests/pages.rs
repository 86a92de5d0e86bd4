//! Ring-buffer pages of every shape, and damaged ones. The decoder may not panic, and may not read behind the page
//! or behind what was committed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use altaz_ftrace::layout::Layout;
use altaz_ftrace::page::{Context, Event, Lost, Summary, decode};
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};
use common::{Item, Page, full};
use proptest::prelude::*;

const IP: u64 = 0xffff_ffff_8512_3454;

fn events(page: &[u8]) -> (Vec<Event>, Summary) {
    let mut events = Vec::new();
    let summary = decode(&Layout::usual(), page, |e| events.push(e));
    assert_eq!(summary.events, events.len() as u64);
    (events, summary)
}

fn call(delta: u32) -> Item {
    Item::Function { delta, ip: IP, tid: 209, flags: 0 }
}

fn page(items: &[Item]) -> Page {
    let mut page = Page::new(4096, 1_000_000);
    for item in items {
        assert!(page.push(item), "{item:?} does not fit");
    }
    page
}

#[test]
fn a_page_of_a_debian_kernel_is_decoded() {
    // The first bytes of a page that Linux 6.12 wrote: its header and three records.
    let words: [u64; 12] = [
        0x2_8641_9398,
        84,
        0x1_0000_0006,
        0x85cc_47e4_0000_00d1,
        0x8522_298b_ffff_ffff,
        0x00c0_50e6_ffff_ffff,
        0xd1_0000_0001,
        0xffff_ffff_8518_9930,
        0xffff_ffff_8532_0001,
        0x0000_0001_0000_00c6,
        0x8518_9940_0000_00d1,
        0xffff_ffff,
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    bytes.resize(4096, 0);
    let (events, summary) = events(&bytes);
    assert_eq!(events.len(), 3);
    assert!(!summary.damaged);
    assert_eq!(
        events[0],
        Event { ip: 0xffff_ffff_85cc_47e4, tid: 0xd1, flags: 0, preempt: 0, at: 0x2_8641_9398 }
    );
    assert_eq!(events[1].ip, 0xffff_ffff_8518_9930);
    assert_eq!(events[1].at, 0x2_8641_9398 + (0x00c0_50e6 >> 5));
}

#[test]
fn time_passes_by_deltas_extends_and_stamps() {
    let stamp = (3 << 59) | 77_000_000_000;
    let mut long_ago = Page::new(4096, 3 << 59);
    for item in [
        call(1),
        Item::Extend { delta: 5_000_000_000 },
        call(2),
        Item::Stamp { at: stamp },
        call(3),
    ] {
        assert!(long_ago.push(&item));
    }
    let (events, _) = events(&long_ago.finish(0, None));
    let times: Vec<u64> = events.iter().map(|e| e.at - (3 << 59)).collect();
    assert_eq!(times, [1, 5_000_000_003, 77_000_000_003], "the top bits are the page's");
}

#[test]
fn what_is_no_call_is_stepped_over() {
    let items = [
        Item::Discarded { words: 6 },
        Item::Other { delta: 4, kind: 11 },
        Item::Long { delta: 5, ip: IP + 8, extra: 4 },
        call(6),
    ];
    let (events, summary) = events(&page(&items).finish(0, None));
    assert_eq!(
        events.iter().map(|e| (e.ip, e.at)).collect::<Vec<_>>(),
        [(IP + 8, 1_000_009), (IP, 1_000_015)]
    );
    assert_eq!((summary.others, summary.damaged), (1, false));
}

#[test]
fn nothing_behind_the_commit_is_read_and_padding_ends_the_page() {
    let mut bytes = page(&[call(1), call(1), call(1)]).finish(0, None);
    bytes[8..16].copy_from_slice(&56u64.to_ne_bytes());
    assert_eq!(events(&bytes).0.len(), 2);
    bytes[8..16].copy_from_slice(&4080u64.to_ne_bytes());
    bytes[16 + 28..20 + 28].copy_from_slice(&29u32.to_ne_bytes());
    let (seen, summary) = events(&bytes);
    assert_eq!((seen.len(), summary.damaged), (1, false));
}

#[test]
fn lost_events_are_told() {
    let lost = |flags: u64, n| events(&page(&[call(1)]).finish(flags << 30, n)).1.lost;
    assert_eq!(lost(0, Some(9)), Lost::None);
    assert_eq!(lost(2, Some(9)), Lost::Some);
    assert_eq!(lost(3, Some(9)), Lost::Number(9));
    // A full page has no room for the number.
    let (mut bytes, _) = full(0);
    let commit = 4080u64 | 3 << 30;
    bytes[8..16].copy_from_slice(&commit.to_ne_bytes());
    assert_eq!(events(&bytes).1.lost, Lost::Some);
    assert_eq!(Lost::Some.at_least(), 1);
}

#[test]
fn damage_is_told_and_what_was_before_it_is_kept() {
    let good = page(&[call(1), call(1)]).finish(0, None);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let (events, summary) = events(&bytes);
        assert!(summary.damaged, "{summary:?}");
        events.len()
    };
    let commit = |value: u64| move |b: &mut Vec<u8>| b[8..16].copy_from_slice(&value.to_ne_bytes());
    assert_eq!(damaged(&commit(57)), 2, "odd");
    assert_eq!(damaged(&commit(1 << 20)), 2, "longer than the page, whose rest is zero");
    assert_eq!(damaged(&commit(u64::MAX)), 2);
    assert_eq!(damaged(&commit(40)), 1, "the second is cut");
    assert_eq!(damaged(&|b| b.truncate(50)), 1);
    assert_eq!(damaged(&|b| b.truncate(10)), 0);
    assert_eq!(damaged(&|b| b.clear()), 0);
    assert_eq!(damaged(&|b| b[44..52].fill(0)), 1, "a length of nothing");
    assert_eq!(damaged(&|b| b[44..48].copy_from_slice(&28u32.to_ne_bytes())), 1);
}

#[test]
fn the_context_is_the_innermost() {
    let contexts: Vec<_> =
        [0x00, 0x01, 0x80, 0x10, 0x08, 0x18, 0x40, 0x50].map(Context::from_flags).to_vec();
    use Context::{Hardirq, Softirq, Task};
    assert_eq!(contexts, [Task, Task, Task, Softirq, Hardirq, Hardirq, Hardirq, Hardirq]);
}

/// Decodes with odd layouts too, from memory with nothing behind it.
fn hostile(data: &[u8]) {
    let exact = data.to_vec().into_boxed_slice();
    let mut layouts = vec![Layout::usual(); 3];
    layouts[1].commit_size = 4;
    layouts[1].record.ip = 4000;
    layouts[1].record.len = 4008;
    layouts[2].data = 3;
    layouts[2].record.len = 0;
    for layout in &layouts {
        let mut events = 0u64;
        let summary = decode(layout, &exact, |_| events += 1);
        assert_eq!(summary.events, events);
        // A record takes four bytes of the page at least.
        assert!(events + summary.others <= data.len() as u64 / 4, "{summary:?}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let everything = [
        call(1),
        Item::Extend { delta: 1 << 40 },
        Item::Long { delta: 1, ip: IP, extra: 400 },
        Item::Stamp { at: 1 << 58 },
        Item::Discarded { words: 3 },
        Item::Other { delta: 1, kind: 5 },
        call(1),
    ];
    vec![full(1).0, page(&everything).finish(3 << 30, Some(7)), page(&[]).finish(0, None)]
}

#[test]
fn no_page_panics_cut_or_changed_anywhere() {
    for seed in seeds() {
        hostile(&seed);
        sweep(&seed[..600], 1, hostile);
        sweep(&seed, 13, hostile);
    }
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_ring_buffer_pages() {
    fuzz_loop("ring_page", &seeds(), fuzz_seconds(), hostile);
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_tracing_texts() {
    let texts: Vec<Vec<u8>> = [
        "ffffffff85002014 vfs_read\nffffffffc0001004 probe [virtio_net]\n",
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
         \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\
         \tpadding     : type == 29\n\ttime_extend : type == 30\n\tdata max type_len  == 28\nID: 1\n\
         \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n",
    ]
    .map(|t| t.as_bytes().to_vec())
    .to_vec();
    fuzz_loop("tracing_text", &texts, fuzz_seconds(), |data| {
        let text = String::from_utf8_lossy(data);
        let _ = Layout::parse(&text, &text, &text);
        let mut table = altaz_ftrace::functions::FunctionTable::from_addrs(&text);
        table.reload_names(&text, &text);
        assert_eq!(table.iter().count(), table.len());
    });
}

fn item() -> impl Strategy<Value = Item> {
    let delta = 0u32..1 << 27;
    prop_oneof![
        4 => (delta.clone(), any::<u64>(), any::<u32>(), any::<u8>())
            .prop_map(|(delta, ip, tid, flags)| Item::Function { delta, ip: ip >> 9, tid, flags }),
        1 => (delta.clone(), any::<u64>(), 0usize..300)
            .prop_map(|(delta, ip, extra)| Item::Long { delta, ip: ip >> 9, extra: extra * 4 }),
        1 => (delta, 2u16..).prop_map(|(delta, kind)| Item::Other { delta, kind }),
        1 => (0u64..1 << 50).prop_map(|delta| Item::Extend { delta }),
        1 => (0u64..1 << 59).prop_map(|at| Item::Stamp { at }),
        1 => (0u32..30).prop_map(|words| Item::Discarded { words }),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        items in prop::collection::vec(item(), 0..200),
        begin in 0u64..1 << 58,
        lost in prop::option::of(1u64..1 << 40),
        size in prop::sample::select(vec![512usize, 4096, 65536]),
    ) {
        let mut page = Page::new(size - 8, begin);
        let mut expected = Vec::new();
        let mut now = begin;
        for item in &items {
            if !page.push(item) {
                break;
            }
            match *item {
                Item::Function { delta, ip, tid, flags } => {
                    now += u64::from(delta);
                    expected.push(Event { ip, tid, flags, preempt: 0, at: now });
                }
                Item::Long { delta, ip, .. } => {
                    now += u64::from(delta);
                    expected.push(Event { ip, tid: 1, flags: 0, preempt: 0, at: now });
                }
                Item::Other { delta, .. } => now += u64::from(delta),
                Item::Extend { delta } => now += delta,
                Item::Stamp { at } => now = (now & !((1 << 59) - 1)) | at,
                Item::Discarded { .. } => {}
            }
        }
        let bytes = page.finish(if lost.is_some() { 3 << 30 } else { 0 }, lost);
        let (events, summary) = events(&bytes);
        prop_assert_eq!(events, expected);
        prop_assert!(!summary.damaged);
        prop_assert_eq!(summary.lost, lost.map_or(Lost::None, Lost::Number));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        hostile(&bytes);
    }
}
