//! QEMU's plugin interface, as far as altaz uses it (`include/plugins/qemu-plugin.h`, API version 4),
//! looked up by name when the plugin is loaded.
//!
//! The symbols are looked up with `dlsym` instead of being linked: a QEMU that lacks one is refused
//! with its name, and the crate's tests link without QEMU.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// `qemu_plugin_id_t`.
pub type PluginId = u64;
/// `struct qemu_plugin_tb`, opaque.
pub type Tb = c_void;
/// `struct qemu_plugin_insn`, opaque.
pub type Insn = c_void;
/// `struct qemu_plugin_scoreboard`, opaque.
pub type Scoreboard = c_void;
/// `struct qemu_plugin_register`, opaque.
pub type Register = c_void;
/// `qemu_plugin_vcpu_udata_cb_t`.
pub type VcpuUdataCb = extern "C" fn(c_uint, *mut c_void);
/// `qemu_plugin_vcpu_simple_cb_t`.
pub type VcpuCb = extern "C" fn(PluginId, c_uint);
/// `qemu_plugin_vcpu_tb_trans_cb_t`.
pub type TransCb = extern "C" fn(PluginId, *mut Tb);

/// `QEMU_PLUGIN_CB_NO_REGS`.
pub const CB_NO_REGS: c_int = 0;
/// `QEMU_PLUGIN_CB_R_REGS`.
pub const CB_R_REGS: c_int = 1;
/// `QEMU_PLUGIN_INLINE_ADD_U64`.
pub const INLINE_ADD_U64: c_int = 0;

/// `qemu_plugin_u64`: a field of a scoreboard's element.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PluginU64 {
    /// The scoreboard.
    pub score: *mut Scoreboard,
    /// Offset in its element, bytes.
    pub offset: usize,
}

/// `qemu_info_t`.
#[repr(C)]
pub struct QemuInfo {
    /// Architecture.
    pub target_name: *const c_char,
    /// Oldest API version that is supported.
    pub version_min: c_int,
    /// Current API version.
    pub version_cur: c_int,
    /// Whether a whole machine is emulated.
    pub system_emulation: bool,
    /// vCPUs at the start.
    pub smp_vcpus: c_int,
    /// vCPUs at most.
    pub max_vcpus: c_int,
}

/// `GArray` and `GByteArray` of glib: their public part.
#[repr(C)]
pub struct GArray {
    /// Elements.
    pub data: *mut u8,
    /// Their number.
    pub len: c_uint,
}

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
pub struct RegDescriptor {
    /// Handle for reading.
    pub handle: *mut Register,
    /// Name.
    pub name: *const c_char,
    /// Feature of the debugger's description that it belongs to.
    pub feature: *const c_char,
}

macro_rules! api {
    ($($(#[$meta:meta])* $name:ident = $symbol:literal : $ty:ty;)+) => {
        /// The functions.
        pub struct Api { $($(#[$meta])* pub $name: $ty,)+ }

        impl Api {
            /// Looks every function up.
            ///
            /// # Errors
            /// The name of the first one that this process does not have.
            fn load() -> Result<Self, &'static CStr> {
                Ok(Self { $($name: {
                    let symbol = lookup($symbol)?;
                    // SAFETY: the symbol has this type in QEMU's plugin API version 4 and in glib 2.
                    unsafe { std::mem::transmute::<NonNull<c_void>, $ty>(symbol) }
                },)+ })
            }
        }
    };
}

api! {
    /// Registers the callback at each vCPU's start.
    register_vcpu_init_cb = c"qemu_plugin_register_vcpu_init_cb": extern "C" fn(PluginId, VcpuCb);
    /// Registers the callback at each translation.
    register_vcpu_tb_trans_cb = c"qemu_plugin_register_vcpu_tb_trans_cb": extern "C" fn(PluginId, TransCb);
    /// Adds to a counter of the vCPU whenever the block executes, without a call.
    register_tb_exec_inline = c"qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu": extern "C" fn(*mut Tb, c_int, PluginU64, u64);
    /// Calls back whenever the block executes.
    register_tb_exec_cb = c"qemu_plugin_register_vcpu_tb_exec_cb": extern "C" fn(*mut Tb, VcpuUdataCb, c_int, *mut c_void);
    /// Calls back before the instruction executes.
    register_insn_exec_cb = c"qemu_plugin_register_vcpu_insn_exec_cb": extern "C" fn(*mut Insn, VcpuUdataCb, c_int, *mut c_void);
    /// Number of instructions in a block.
    tb_n_insns = c"qemu_plugin_tb_n_insns": extern "C" fn(*const Tb) -> usize;
    /// Virtual address of a block.
    tb_vaddr = c"qemu_plugin_tb_vaddr": extern "C" fn(*const Tb) -> u64;
    /// An instruction of a block.
    tb_get_insn = c"qemu_plugin_tb_get_insn": extern "C" fn(*const Tb, usize) -> *mut Insn;
    /// Copies an instruction's bytes.
    insn_data = c"qemu_plugin_insn_data": extern "C" fn(*const Insn, *mut c_void, usize) -> usize;
    /// An instruction's size.
    insn_size = c"qemu_plugin_insn_size": extern "C" fn(*const Insn) -> usize;
    /// An instruction's virtual address.
    insn_vaddr = c"qemu_plugin_insn_vaddr": extern "C" fn(*const Insn) -> u64;
    /// Where an instruction's bytes lie in QEMU's own memory; null for what is not memory.
    insn_haddr = c"qemu_plugin_insn_haddr": extern "C" fn(*const Insn) -> *mut c_void;
    /// Makes a scoreboard.
    scoreboard_new = c"qemu_plugin_scoreboard_new": extern "C" fn(usize) -> *mut Scoreboard;
    /// A vCPU's element of a scoreboard.
    scoreboard_find = c"qemu_plugin_scoreboard_find": extern "C" fn(*mut Scoreboard, c_uint) -> *mut c_void;
    /// The registers of the calling vCPU.
    get_registers = c"qemu_plugin_get_registers": extern "C" fn() -> *mut GArray;
    /// Appends a register's bytes to the array; their number or −1.
    read_register = c"qemu_plugin_read_register": extern "C" fn(*mut Register, *mut GArray) -> c_int;
    /// Number of vCPUs.
    num_vcpus = c"qemu_plugin_num_vcpus": extern "C" fn() -> c_int;
    /// glib: an empty byte array.
    g_byte_array_new = c"g_byte_array_new": extern "C" fn() -> *mut GArray;
    /// glib: a byte array's new size.
    g_byte_array_set_size = c"g_byte_array_set_size": extern "C" fn(*mut GArray, c_uint) -> *mut GArray;
    /// glib: frees an array.
    g_array_free = c"g_array_free": extern "C" fn(*mut GArray, c_int) -> *mut c_char;
}

// SAFETY: a table of function pointers; QEMU allows calls from any of its threads.
unsafe impl Sync for Api {}
// SAFETY: as above.
unsafe impl Send for Api {}

static API: OnceLock<Api> = OnceLock::new();

fn lookup(symbol: &'static CStr) -> Result<NonNull<c_void>, &'static CStr> {
    // SAFETY: dlsym with a NUL-terminated name has no other condition.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) }).ok_or(symbol)
}

/// Looks the interface up in this process.
///
/// # Errors
/// The name of the function that is missing.
pub fn init() -> Result<&'static Api, &'static CStr> {
    let api = Api::load()?;
    Ok(API.get_or_init(|| api))
}

/// The interface.
///
/// # Panics
/// Before [`init`] succeeded; no callback is registered before that.
#[inline]
pub fn api() -> &'static Api {
    match API.get() {
        Some(api) => api,
        None => std::process::abort(),
    }
}
