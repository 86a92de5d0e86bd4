//! Callbacks from QEMU: a block was translated, a vCPU started, an address space or a guest changed.
//!
//! Which guest runs on a vCPU is known from `VMRUN` (an exec callback before it) and from the
//! instruction behind it, which executes again after the exit. The VMCB's owner is told by the
//! address space that runs `VMRUN`, so that all vCPUs of a guest are one guest.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use altaz_wire::{Block, CodePage, PAGE, PageHash};

use crate::channel;
use crate::counters::{
    Boards, CAPACITY, Counters, MAX_VCPUS, SPLIT_CAPACITY, Slots, SplitCounters,
};
use crate::ffi::{self, CB_NO_REGS, CB_R_REGS, INLINE_ADD_U64, PluginId, QemuInfo, Register, Tb};
use crate::table::{BlockTable, Special, page_hash, special};

/// What a vCPU is doing; written by its own thread.
struct Vcpu {
    /// 0 for the machine itself, else 1 + guest index.
    guest: AtomicU8,
    /// Page-table base of the machine's current address space; 0 when not known yet.
    cr3: AtomicU64,
    /// Base and slot of the last split block, so that the map is asked once per switch.
    cached: AtomicU64,
    cached_slot: AtomicU64,
    split: SplitCounters,
}

static VCPUS: [Vcpu; MAX_VCPUS] = [const {
    Vcpu {
        guest: AtomicU8::new(0),
        cr3: AtomicU64::new(0),
        cached: AtomicU64::new(0),
        cached_slot: AtomicU64::new(0),
        split: SplitCounters::new(),
    }
}; MAX_VCPUS];

/// What all vCPUs share.
pub struct Observer {
    table: Mutex<Table>,
    boards: Boards,
    split_pages: HashSet<PageHash>,
    slots: Slots,
    guests: Mutex<Vec<u64>>,
}

struct Table {
    blocks: BlockTable,
    /// Block id by split index, and back.
    split_blocks: Vec<u32>,
    split_index: HashMap<u32, usize>,
    /// Addresses of the instructions behind `VMRUN`.
    after_vmrun: HashSet<u64>,
}

static OBSERVER: OnceLock<Observer> = OnceLock::new();

fn observer() -> &'static Observer {
    match OBSERVER.get() {
        Some(observer) => observer,
        None => std::process::abort(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// State at a window's end, for the channel.
pub struct Totals {
    /// New blocks.
    pub blocks: Vec<Block>,
    /// New pages.
    pub pages: Vec<CodePage>,
    /// Blocks in all.
    pub len: u32,
    /// Translations without a counter.
    pub refused: u64,
    /// Block by split index.
    pub split_blocks: Vec<u32>,
}

impl Observer {
    /// Takes what is new.
    pub fn totals(&self) -> Totals {
        let mut table = lock(&self.table);
        let (blocks, pages) = table.blocks.take_new();
        Totals {
            blocks,
            pages,
            len: table.blocks.given(),
            refused: table.blocks.refused(),
            split_blocks: table.split_blocks.clone(),
        }
    }

    /// Page-table bases by slot.
    pub fn slots(&self) -> Vec<u64> {
        self.slots.bases()
    }

    /// Page-table bases of guests' monitors.
    pub fn guests(&self) -> Vec<u64> {
        lock(&self.guests).clone()
    }

    /// Split counters of the first `vcpus` vCPUs.
    pub fn split_counters(vcpus: u32) -> Vec<&'static SplitCounters> {
        VCPUS.iter().take(vcpus as usize).map(|v| &v.split).collect()
    }
}

/// Reads the configuration, makes the counters, starts the channel and registers the callbacks.
pub fn start(id: PluginId, info: &QemuInfo, fd: c_int) -> Result<(), String> {
    let (stream, split_pages) = channel::open(fd, info)?;
    let boards = Boards::new();
    let counters = Counters::new(boards.clone());
    let observer = OBSERVER.get_or_init(|| Observer {
        table: Mutex::new(Table {
            blocks: BlockTable::new(CAPACITY),
            split_blocks: Vec::new(),
            split_index: HashMap::new(),
            after_vmrun: HashSet::new(),
        }),
        boards,
        split_pages: split_pages.into_iter().collect(),
        slots: Slots::default(),
        guests: Mutex::new(Vec::new()),
    });
    channel::serve(stream, counters, observer)?;
    (ffi::api().register_vcpu_init_cb)(id, vcpu_init);
    (ffi::api().register_vcpu_tb_trans_cb)(id, translated);
    Ok(())
}

/// Registers of a vCPU, and which one the thread drives.
struct Registers {
    vcpu: usize,
    buffer: *mut ffi::GArray,
    cs: *mut Register,
    cr3: *mut Register,
    /// By x86 register number.
    general: [*mut Register; 16],
}

thread_local! {
    static REGISTERS: RefCell<Option<Registers>> = const { RefCell::new(None) };
}

const GENERAL: [&CStr; 16] = [
    c"rax", c"rcx", c"rdx", c"rbx", c"rsp", c"rbp", c"rsi", c"rdi", c"r8", c"r9", c"r10", c"r11",
    c"r12", c"r13", c"r14", c"r15",
];

extern "C" fn vcpu_init(_id: PluginId, vcpu: c_uint) {
    let api = ffi::api();
    let array = (api.get_registers)();
    if array.is_null() {
        return;
    }
    let mut registers = Registers {
        vcpu: vcpu as usize,
        buffer: (api.g_byte_array_new)(),
        cs: ptr::null_mut(),
        cr3: ptr::null_mut(),
        general: [ptr::null_mut(); 16],
    };
    // SAFETY: a GArray of `len` descriptors; they live until it is freed below.
    let descriptors = unsafe {
        std::slice::from_raw_parts(
            (*array).data.cast::<ffi::RegDescriptor>(),
            (*array).len as usize,
        )
    };
    for d in descriptors {
        // SAFETY: QEMU interns the names as C strings.
        let name = unsafe { CStr::from_ptr(d.name) };
        if name == c"cs" {
            registers.cs = d.handle;
        } else if name == c"cr3" {
            registers.cr3 = d.handle;
        } else if let Some(i) = GENERAL.iter().position(|g| *g == name) {
            registers.general[i] = d.handle;
        }
    }
    (api.g_array_free)(array, 1);
    REGISTERS.set(Some(registers));
}

impl Registers {
    fn read(&self, register: *mut Register) -> Option<u64> {
        if register.is_null() {
            return None;
        }
        let api = ffi::api();
        (api.g_byte_array_set_size)(self.buffer, 0);
        let size = (api.read_register)(register, self.buffer);
        if size <= 0 {
            return None;
        }
        // SAFETY: the buffer is ours and holds `len` bytes.
        let bytes =
            unsafe { std::slice::from_raw_parts((*self.buffer).data, (*self.buffer).len as usize) };
        let mut value = [0; 8];
        let n = bytes.len().min(8);
        value[..n].copy_from_slice(&bytes[..n]);
        Some(u64::from_le_bytes(value))
    }
}

/// Page-table base without PCID and the no-flush bit.
fn base(cr3: u64) -> u64 {
    cr3 & 0x000f_ffff_ffff_f000
}

/// Reads a register of the calling vCPU.
fn register(pick: impl FnOnce(&Registers) -> *mut Register) -> Option<u64> {
    REGISTERS.with_borrow(|r| r.as_ref().and_then(|r| r.read(pick(r))))
}

extern "C" fn before_mov_to_cr3(vcpu: c_uint, number: *mut c_void) {
    let Some(state) = VCPUS.get(vcpu as usize) else { return };
    if state.guest.load(Ordering::Relaxed) == 0
        && let Some(value) = register(|r| r.general[number as usize & 15])
    {
        state.cr3.store(base(value), Ordering::Relaxed);
    }
}

extern "C" fn before_vmrun(vcpu: c_uint, _: *mut c_void) {
    let Some(state) = VCPUS.get(vcpu as usize) else { return };
    let cr3 = register(|r| r.cr3).map_or(0, base);
    let mut guests = lock(&observer().guests);
    let index = guests.iter().position(|g| *g == cr3).unwrap_or_else(|| {
        guests.push(cr3);
        guests.len() - 1
    });
    state.guest.store((index + 1).min(255) as u8, Ordering::Relaxed);
}

extern "C" fn after_vmrun(vcpu: c_uint, _: *mut c_void) {
    if let Some(state) = VCPUS.get(vcpu as usize) {
        state.guest.store(0, Ordering::Relaxed);
    }
}

extern "C" fn split_executed(vcpu: c_uint, index: *mut c_void) {
    let Some(state) = VCPUS.get(vcpu as usize) else { return };
    let cr3 = state.cr3.load(Ordering::Relaxed);
    let slot = if state.cached.load(Ordering::Relaxed) == cr3 {
        state.cached_slot.load(Ordering::Relaxed) as u16
    } else {
        let slot = observer().slots.slot(cr3);
        state.cached.store(cr3, Ordering::Relaxed);
        state.cached_slot.store(u64::from(slot), Ordering::Relaxed);
        slot
    };
    state.split.add(slot, index as usize);
}

/// The 4 KiB page of QEMU's memory that holds `haddr`.
fn page_at(haddr: *const u8) -> [u8; PAGE] {
    let start = haddr.map_addr(|a| a & !(PAGE - 1));
    let mut page = [0; PAGE];
    // SAFETY: guest RAM is mapped in whole pages and stays mapped; the guest may write to it while
    // it is copied, which a byte copy tolerates (the block would then be translated again).
    unsafe { ptr::copy_nonoverlapping(start, page.as_mut_ptr(), PAGE) };
    page
}

extern "C" fn translated(_id: PluginId, tb: *mut Tb) {
    let api = ffi::api();
    let n = (api.tb_n_insns)(tb);
    if n == 0 {
        return;
    }
    let Some(vcpu) = REGISTERS.with_borrow(|r| r.as_ref().map(|r| r.vcpu)) else { return };
    let Some(state) = VCPUS.get(vcpu) else { return };
    let vaddr = (api.tb_vaddr)(tb);
    let first = (api.tb_get_insn)(tb, 0);
    let haddr = (api.insn_haddr)(first).cast_const().cast::<u8>();
    if haddr.is_null() {
        return;
    }
    let ring = register(|r| r.cs).map_or_else(|| if vaddr >> 63 == 1 { 0 } else { 3 }, |cs| cs & 3);
    let last = (api.tb_get_insn)(tb, n - 1);
    let end = (api.insn_vaddr)(last) + (api.insn_size)(last) as u64;
    let size = end.wrapping_sub(vaddr).min(2 * PAGE as u64) as u16;
    let observer = observer();

    let mut guest = state.guest.load(Ordering::Relaxed);
    if ring == 0 && guest != 0 && lock(&observer.table).after_vmrun.contains(&vaddr) {
        // The guest has just been left; the callback that says so is not attached yet.
        guest = 0;
        state.guest.store(0, Ordering::Relaxed);
    }
    let mut block = Block { guest, ring: ring as u8, vaddr, size, page: 0, next_page: 0 };

    let mut bytes = Vec::new();
    let mut pages: [Option<(PageHash, [u8; PAGE])>; 2] = [None, None];
    if ring == 0 {
        bytes.reserve(size as usize);
        for i in 0..n {
            let insn = (api.tb_get_insn)(tb, i);
            let mut data = [0u8; 16];
            let len = (api.insn_data)(insn, data.as_mut_ptr().cast(), data.len());
            let data = &data[..len.min(16)];
            bytes.extend_from_slice(data);
            match special(data) {
                Some(Special::Vmrun) => {
                    lock(&observer.table).after_vmrun.insert((api.insn_vaddr)(insn) + len as u64);
                    (api.register_insn_exec_cb)(insn, before_vmrun, CB_R_REGS, ptr::null_mut());
                }
                Some(Special::MovToCr3(number)) if guest == 0 => {
                    let number = ptr::without_provenance_mut(number as usize);
                    (api.register_insn_exec_cb)(insn, before_mov_to_cr3, CB_R_REGS, number);
                }
                _ => {}
            }
        }
    } else {
        let page = page_at(haddr);
        block.page = page_hash(&page);
        pages[0] = Some((block.page, page));
        if (vaddr ^ (end - 1)) & !(PAGE as u64 - 1) != 0 {
            // The first instruction that starts in the second page, if any, says where that is.
            let second = (1..n)
                .map(|i| (api.tb_get_insn)(tb, i))
                .find(|i| ((api.insn_vaddr)(*i) ^ vaddr) & !(PAGE as u64 - 1) != 0);
            let haddr = second.map_or(ptr::null_mut(), |i| (api.insn_haddr)(i)).cast_const();
            if !haddr.is_null() {
                let page = page_at(haddr.cast());
                block.next_page = page_hash(&page);
                pages[1] = Some((block.next_page, page));
            }
        }
    }

    let split = guest == 0 && block.page != 0 && observer.split_pages.contains(&block.page);
    let mut table = lock(&observer.table);
    for (hash, content) in pages.iter().flatten() {
        table.blocks.page(*hash, content);
    }
    let is_after_vmrun = ring == 0 && table.after_vmrun.contains(&vaddr);
    let id = table.blocks.id(block, &bytes);
    let split_index = id.filter(|_| split).and_then(|id| {
        let Table { split_blocks, split_index, .. } = &mut *table;
        let next = split_blocks.len();
        let index = *split_index.entry(id).or_insert(next);
        if index == next {
            if next == SPLIT_CAPACITY {
                split_index.remove(&id);
                return None;
            }
            split_blocks.push(id);
        }
        Some(index)
    });
    drop(table);

    if is_after_vmrun {
        (api.register_insn_exec_cb)(first, after_vmrun, CB_NO_REGS, ptr::null_mut());
    }
    let Some(id) = id else { return };
    match split_index {
        Some(index) => {
            let index = ptr::without_provenance_mut(index);
            (api.register_tb_exec_cb)(tb, split_executed, CB_NO_REGS, index);
        }
        None => {
            (api.register_tb_exec_inline)(tb, INLINE_ADD_U64, observer.boards.entry(id), 1);
        }
    }
}
