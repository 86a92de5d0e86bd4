//! Blocks as a plugin would send them become units of the right function, layer and size. The image
//! is this test's own program.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::sync::Arc;

use altaz_collect::exact::build;
use altaz_collect::exact::naming::{CodeImage, KernelCode, Names, RoleRule, Sources};
use altaz_collect::exact::recording::{Purpose, Recording};
use altaz_profile::rules::{LayerRule, LayerRules, Machine, Origin, Privilege};
use altaz_profile::{Context, Layer, Phase, Unit};
use altaz_symbols::pages::file_page;
use altaz_symbols::{
    Binary, Function, ImageFile, Kallsyms, PageIndex, PageIndexBuilder, hash_page,
};
use altaz_wire::{Block, Count, PAGE, PageHash, Snapshot, SplitCount};

const PATH: &str = "/usr/bin/service";
const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000100 T tcp_sendmsg
ffffffff81000180 T __x64_sys_getppid
ffffffff810001c0 T _etext
ffffffffc0000000 t tun_get_user\t[tun]
ffffffffc0000040 t tun_end\t[tun]
";

struct Program {
    bytes: Vec<u8>,
    binary: Binary,
    index: PageIndex,
}

fn program() -> Program {
    let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut builder = PageIndexBuilder::new();
    builder.add(PATH, &bytes, None).expect("this program has code");
    Program { binary: Binary::parse(&bytes).unwrap(), index: builder.finish(), bytes }
}

impl Program {
    /// Functions that lie in one page, in the middle of the program.
    fn functions(&self) -> Vec<&Function> {
        let all: Vec<&Function> = self
            .binary
            .functions
            .iter()
            .filter(|f| {
                f.size >= 40
                    && !f.part
                    && f.offset / PAGE as u64 == (f.offset + f.size) / PAGE as u64
            })
            .collect();
        let middle = all.len() / 2;
        all[middle..middle + 2].to_vec()
    }

    fn page(&self, offset: u64) -> [u8; PAGE] {
        file_page(&self.bytes, (offset / PAGE as u64) as u32)
    }

    fn block(&self, offset: u64, size: u16) -> Block {
        user(hash_page(&self.page(offset)), offset, size)
    }
}

fn user(page: PageHash, offset: u64, size: u16) -> Block {
    let vaddr = 0x7f00_0000_0000 + offset % PAGE as u64;
    Block { guest: 0, ring: 3, vaddr, size, page, next_page: 0 }
}

fn kernel(vaddr: u64, size: u16, guest: u8) -> Block {
    Block { guest, ring: 0, vaddr, size, page: 0, next_page: 0 }
}

fn rule(privilege: Privilege, machine: Machine, layer: Layer) -> LayerRule {
    LayerRule { privilege: Some(privilege), machine: Some(machine), ..LayerRule::any(layer) }
}

fn rules() -> Vec<LayerRule> {
    let gofer = LayerRule { role: Some("gofer".into()), ..LayerRule::any(Layer::SandboxHelper) };
    let sentry = LayerRule { role: Some("sentry".into()), ..LayerRule::any(Layer::SandboxKernel) };
    vec![
        gofer,
        sentry,
        rule(Privilege::Kernel, Machine::Host, Layer::HostKernel),
        rule(Privilege::Kernel, Machine::Guest, Layer::GuestKernel),
        rule(Privilege::User, Machine::Host, Layer::App),
    ]
}

fn kernel_code() -> KernelCode {
    let source = |module: Option<&str>, offset: u64| match (module, offset) {
        (None, 0x100) => Some(Arc::from("net/ipv4/tcp.c")),
        (Some("tun"), _) => Some(Arc::from("drivers/net/")),
        _ => None,
    };
    KernelCode {
        kallsyms: Kallsyms::parse(KALLSYMS).unwrap(),
        build_id: Some("ab".into()),
        source: Some(Arc::new(source)),
    }
}

fn names<'a>(recording: &Recording, program: &'a Program, roles: Vec<RoleRule>) -> Names<'a> {
    let read = |_: &ImageFile| Ok(program.bytes.clone());
    let sources = Sources {
        images: vec![CodeImage {
            origin: Origin::Service,
            index: &program.index,
            read: Box::new(read),
        }],
        kernel: kernel_code(),
        guest_kernel: Some(kernel_code()),
        kernel_program: None,
        rules: LayerRules::compile(&rules()).unwrap(),
        roles,
        host_prefers: Origin::Service,
    };
    Names::new(recording, sources).unwrap()
}

/// A recording with idle and serve windows; `counts(window)` says what ran.
fn recording(
    blocks: Vec<Block>,
    pages: Vec<(PageHash, Box<[u8]>)>,
    counts: impl Fn(Phase, usize) -> Vec<Count>,
) -> Recording {
    let mut recording = Recording::default();
    let first = Snapshot { blocks, pages, ..Snapshot::default() };
    recording.add(first, Purpose::Aside, |_| false).unwrap();
    for i in 1..=40u64 {
        let phase = if i <= 10 { Phase::Idle } else { Phase::Serve };
        let snapshot = Snapshot {
            begin_ns: i * 500_000_000,
            end_ns: i * 500_000_000,
            counts: counts(phase, i as usize),
            ..Snapshot::default()
        };
        recording.add(snapshot, Purpose::Phase(phase), |_| false).unwrap();
    }
    recording
}

fn serve<'a>(units: &'a [Unit], symbol: &str) -> Vec<&'a Unit> {
    units.iter().filter(|u| u.phase == Phase::Serve && *u.symbol == *symbol).collect()
}

#[test]
fn user_code_is_named_by_its_page_and_covers_the_union_of_its_blocks() {
    let program = program();
    let functions = program.functions();
    let (f, g) = (functions[0], functions[1]);
    let blocks = vec![
        program.block(f.offset, 10),
        program.block(f.offset + 5, 10),
        program.block(g.offset + 8, 4),
    ];
    let recording = recording(blocks, vec![], |phase, window| match phase {
        Phase::Serve => {
            let mut counts = vec![Count { block: 0, count: 3 }, Count { block: 1, count: 1 }];
            if window % 2 == 0 {
                counts.push(Count { block: 2, count: 9 });
            }
            counts
        }
        _ => vec![],
    });
    let built = build::build(&recording, &mut names(&recording, &program, vec![]));
    let [unit] = serve(&built.units, &f.name)[..] else { panic!("one unit of {}", f.name) };
    assert_eq!((unit.layer, &*unit.binary), (Layer::App, PATH));
    assert_eq!((unit.offset, unit.covered), (f.offset, Some(15)));
    assert_eq!((unit.windows.len(), unit.context), (30, Context::Any));
    let [unit] = serve(&built.units, &g.name)[..] else { panic!("one unit of {}", g.name) };
    assert_eq!((unit.covered, unit.windows.len()), (Some(4), 15));
    assert_eq!(built.code[&Layer::App].named, 19);
    assert_eq!(built.code[&Layer::App].unnamed, 0);
}

#[test]
fn a_patched_page_is_still_the_files_and_unknown_code_is_counted_not_dropped() {
    let program = program();
    let f = program.functions()[0];
    let mut patched = program.page(f.offset);
    let at = (f.offset % PAGE as u64) as usize;
    patched[at + 20..at + 27].fill(0xcc);
    let noise: [u8; PAGE] = std::array::from_fn(|i| (i * i % 251) as u8);
    let pages = vec![
        (hash_page(&patched), patched.as_slice().into()),
        (hash_page(&noise), noise.as_slice().into()),
    ];
    let other = program.functions()[1];
    let blocks = vec![
        user(hash_page(&patched), f.offset, 12),
        user(hash_page(&noise), 0x100, 33),
        // Files in use are the ones that are searched for patched pages.
        program.block(other.offset, 4),
    ];
    let recording = recording(blocks, pages, |phase, _| match phase {
        Phase::Serve => (0..3).map(|block| Count { block, count: 1 }).collect(),
        _ => vec![],
    });
    let built = build::build(&recording, &mut names(&recording, &program, vec![]));
    assert_eq!(serve(&built.units, &f.name).len(), 1);
    let code = built.code[&Layer::App];
    assert_eq!((code.named, code.unnamed), (16, 33));
}

#[test]
fn kernels_are_named_by_address_apart_for_the_guest_and_net_of_the_idle_machine() {
    let program = program();
    let send = 0xffff_ffff_8100_0100;
    let blocks = vec![
        kernel(send, 16, 0),
        kernel(send, 16, 1),
        kernel(0xffff_ffff_c000_0000, 8, 0),
        // Runs out of one function into the next.
        kernel(0xffff_ffff_8100_0178, 16, 0),
        // A seccomp filter, translated by the kernel.
        kernel(0xffff_ffff_c123_0000, 20, 0),
    ];
    let recording = recording(blocks, vec![], |phase, window| {
        let mut counts = vec![Count { block: 2, count: 50 + window as u64 % 3 }];
        if phase == Phase::Serve {
            counts.extend([0, 1, 3, 4].map(|block| Count { block, count: 4 }));
        }
        counts
    });
    let built = build::build(&recording, &mut names(&recording, &program, vec![]));
    let sends = serve(&built.units, "tcp_sendmsg");
    let layers: Vec<Layer> = sends.iter().map(|u| u.layer).collect();
    assert_eq!(layers, [Layer::GuestKernel, Layer::HostKernel]);
    assert_eq!(sends[1].file.as_deref(), Some("net/ipv4/tcp.c"));
    assert_eq!((sends[1].offset, sends[1].covered), (0x100, Some(16 + 8)));
    assert_eq!(serve(&built.units, "__x64_sys_getppid")[0].covered, Some(8));
    assert_eq!(built.code[&Layer::HostKernel].jit, 20);
    let tun = serve(&built.units, "tun_get_user")[0];
    assert_eq!((&*tun.binary, tun.context), ("[tun]", Context::Background));
}

#[test]
fn one_binary_in_two_roles_is_two_layers() {
    let program = program();
    let functions = program.functions();
    let (mark, shared) = (functions[0], functions[1]);
    let roles = vec![RoleRule {
        binary: PATH.into(),
        roles: vec![("gofer".into(), vec![mark.name.clone()])],
        default_role: "sentry".into(),
    }];
    let mut recording = recording(
        vec![program.block(mark.offset, 8), program.block(shared.offset, 8)],
        vec![],
        |_, _| vec![],
    );
    for window in &mut recording.windows[11..] {
        window.split = vec![
            SplitCount { block: 0, slot: 2, count: 1 },
            SplitCount { block: 1, slot: 1, count: 5 },
            SplitCount { block: 1, slot: 2, count: 7 },
        ];
    }
    let built = build::build(&recording, &mut names(&recording, &program, roles));
    let layers: Vec<Layer> = serve(&built.units, &shared.name).iter().map(|u| u.layer).collect();
    assert_eq!(layers, [Layer::SandboxKernel, Layer::SandboxHelper]);
    assert_eq!(serve(&built.units, &mark.name)[0].layer, Layer::SandboxHelper);
}

#[test]
fn calibration_counts_entries_of_the_known_call_only() {
    let entry = 0xffff_ffff_8100_0180;
    let mut recording =
        recording(vec![kernel(entry, 12, 0), kernel(entry + 4, 8, 0)], vec![], |_, _| {
            vec![Count { block: 0, count: 77 }]
        });
    recording.windows[3].purpose = Purpose::Calibration;
    recording.windows[3].counts =
        vec![Count { block: 0, count: 990 }, Count { block: 1, count: 10 }];
    assert_eq!(build::entries_in_calibration(&recording, entry), 990);
}
