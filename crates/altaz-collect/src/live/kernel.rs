//! The running kernel: its symbols, its build-id, the sources of its functions.
//!
//! Everything is read below roots given as arguments. A kernel whose image is not in `/boot` leaves
//! its functions without source files; a kernel that hides its addresses cannot be named at all.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use altaz_profile::{BlindSpot, Layer};
use altaz_symbols::source_map::module_source;
use altaz_symbols::{Kallsyms, SourceMap, SymbolError, decompress_kernel};

use crate::exact::naming::{KernelCode, Target, kernel_target};

/// Note type of a GNU build-id (`NT_GNU_BUILD_ID`).
const NT_GNU_BUILD_ID: u32 = 3;

/// Where the running kernel describes itself.
#[derive(Debug, Clone)]
pub struct KernelRoots {
    /// procfs.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// Kernel images.
    pub boot: PathBuf,
    /// Module trees (`/lib/modules`).
    pub modules: PathBuf,
}

impl KernelRoots {
    /// Those of this machine.
    pub fn here() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            boot: "/boot".into(),
            modules: "/lib/modules".into(),
        }
    }
}

/// Why the kernel's functions cannot be named.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The symbol table cannot be read.
    #[error("cannot read the kernel's symbols from {path}: {error}; run as root")]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// It can, and says nothing.
    #[error(
        "the kernel's symbols in {path} cannot be used: {error}; run as root with CAP_SYSLOG, and \
         with kernel.kptr_restrict below 2"
    )]
    Symbols {
        /// File.
        path: PathBuf,
        /// Cause.
        error: SymbolError,
    },
}

/// Names the running kernel's functions by address.
pub struct KernelNames {
    code: KernelCode,
}

impl KernelNames {
    /// Reads the symbols, and what is there of image and modules.
    ///
    /// # Errors
    /// When there are no symbols with addresses.
    pub fn read(roots: &KernelRoots, release: &str) -> Result<Self, KernelError> {
        let kallsyms = kallsyms(roots)?;
        let image = fs::read(roots.boot.join(format!("vmlinuz-{release}")))
            .ok()
            .and_then(|image| decompress_kernel(&image).ok())
            .unwrap_or_default();
        let map = SourceMap::new(&image, &kallsyms).unwrap_or_default();
        drop(image);
        let sources = module_sources(&roots.modules.join(release));
        let source = move |module: Option<&str>, offset: u64| match module {
            Some(module) => sources.get(module).cloned(),
            None => map.source(offset).map(|s| s.label().into()),
        };
        let build_id = fs::read(roots.sys.join("kernel/notes"))
            .ok()
            .and_then(|notes| build_id_of_notes(&notes))
            .map(Arc::from);
        Ok(Self { code: KernelCode { kallsyms, build_id, source: Some(Arc::new(source)) } })
    }

    /// Reads the symbols again: modules were loaded.
    ///
    /// # Errors
    /// As [`KernelNames::read`]; the old ones stay.
    pub fn refresh(&mut self, roots: &KernelRoots) -> Result<(), KernelError> {
        self.code.kallsyms = kallsyms(roots)?;
        Ok(())
    }

    /// The unit of the function that an address lies in; `None` for code made at run time and for
    /// addresses outside the kernel's text.
    pub fn target(&self, address: u64) -> Option<Target> {
        let found = self.code.kallsyms.lookup(address).filter(|f| !f.jit)?;
        Some(kernel_target(Layer::HostKernel, &self.code, &found))
    }

    /// The functions that no tracer can see: in the symbol table, but with none of the `traceable`
    /// addresses in them. In functions and bytes.
    pub fn not_traceable(&self, traceable: impl IntoIterator<Item = u64>) -> BlindSpot {
        let mut seen: Vec<u64> = traceable
            .into_iter()
            .filter_map(|address| self.code.kallsyms.lookup(address))
            .map(|f| f.start)
            .collect();
        seen.sort_unstable();
        // What lies behind the core's text ran at boot and is gone.
        let text = self.code.kallsyms.text_range();
        let there = |f: &altaz_symbols::KernelFunction<'_>| {
            let own = f.module.is_some() || text.contains(&f.start);
            // Padding before functions has symbols of its own.
            !f.jit && own && !f.name.starts_with("__pfx_") && !f.name.starts_with("__cfi_")
        };
        let (mut functions, mut bytes) = (0, 0);
        for f in self.code.kallsyms.iter().filter(there) {
            if seen.binary_search(&f.start).is_err() {
                functions += 1;
                bytes += f.size;
            }
        }
        BlindSpot {
            layer: Some(Layer::HostKernel),
            kind: "not-traceable".into(),
            what: "kernel functions that the kernel's tracer cannot see (assembly, notrace, \
                   entry code): whether they ran is not known"
                .into(),
            bytes: Some(bytes),
            functions: Some(functions),
        }
    }
}

fn kallsyms(roots: &KernelRoots) -> Result<Kallsyms, KernelError> {
    let path = roots.proc.join("kallsyms");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Err(KernelError::Read { path, error }),
    };
    Kallsyms::parse(&text).map_err(|error| KernelError::Symbols { path, error })
}

/// Source directory of each module, from where its file lies.
fn module_sources(tree: &Path) -> HashMap<String, Arc<str>> {
    let list = fs::read_to_string(tree.join("modules.dep")).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split(':').next())
        .filter_map(module_source)
        .map(|(module, directory)| (module, format!("{directory}/").into()))
        .collect()
}

/// The GNU build-id in a sequence of ELF notes, in lower-case hex.
fn build_id_of_notes(mut notes: &[u8]) -> Option<String> {
    while let Some((header, rest)) = notes.split_at_checked(12) {
        let word =
            |i: usize| header.get(i..i + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let (name_len, desc_len, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let desc_at = name_len.checked_next_multiple_of(4)?;
        let desc = rest.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == NT_GNU_BUILD_ID && rest.get(..name_len)? == b"GNU\0" {
            return Some(desc.iter().map(|b| format!("{b:02x}")).collect());
        }
        notes = rest.get(desc_at.checked_add(desc_len.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &Path, kallsyms: &str) -> KernelRoots {
        fs::create_dir_all(dir.join("proc")).unwrap();
        fs::write(dir.join("proc/kallsyms"), kallsyms).unwrap();
        let modules = dir.join("modules/6.1");
        fs::create_dir_all(&modules).unwrap();
        let list = "kernel/drivers/net/tun.ko: kernel/net/tap.ko\n";
        fs::write(modules.join("modules.dep"), list).unwrap();
        KernelRoots {
            proc: dir.join("proc"),
            sys: dir.join("sys"),
            boot: dir.join("boot"),
            modules: dir.join("modules"),
        }
    }

    const SYMBOLS: &str = "ffffffff81000000 T _text\n\
        ffffffff81000100 T vfs_read\n\
        ffffffff81000180 t hidden\n\
        ffffffff810001c0 T _etext\n\
        ffffffffc0000000 t tun_open\t[tun]\n\
        ffffffffc0000040 t tun_close\t[tun]\n\
        ffffffffc0100000 t bpf_prog_1\t[bpf]\n";

    #[test]
    fn functions_are_named_with_their_module_and_its_sources() {
        let dir = tempfile::tempdir().unwrap();
        let names = KernelNames::read(&roots(dir.path(), SYMBOLS), "6.1").unwrap();
        let read = names.target(0xffff_ffff_8100_0104).unwrap();
        assert_eq!((&*read.binary, &*read.symbol, read.offset), ("kernel", "vfs_read", 0x100));
        let open = names.target(0xffff_ffff_c000_0000).unwrap();
        assert_eq!((&*open.binary, open.file.as_deref()), ("[tun]", Some("drivers/net/")));
        assert!(names.target(0xffff_ffff_c010_0000).is_none(), "made at run time");
    }

    #[test]
    fn what_cannot_be_traced_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let names = KernelNames::read(&roots(dir.path(), SYMBOLS), "6.1").unwrap();
        let traceable = [0xffff_ffff_8100_0104, 0xffff_ffff_c000_0004, 0xffff_ffff_c000_0044];
        let spot = names.not_traceable(traceable);
        // `hidden`, and what stands before the first function.
        assert_eq!(spot.functions, Some(2));
        assert_eq!(spot.bytes, Some(0x100 + 0x40));
    }

    #[test]
    fn hidden_addresses_are_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path(), "0000000000000000 T _text\n");
        let error = KernelNames::read(&roots, "6.1").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("kptr_restrict"), "{error}");
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let note = |kind: u32, name: &[u8], desc: &[u8]| {
            let mut bytes = Vec::new();
            for n in [name.len() as u32, desc.len() as u32, kind] {
                bytes.extend(n.to_le_bytes());
            }
            for part in [name, desc] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let mut notes = note(0x100, b"Linux\0", &[1, 2, 3]);
        notes.extend(note(NT_GNU_BUILD_ID, b"GNU\0", &[0xab, 0x01]));
        assert_eq!(build_id_of_notes(&notes).as_deref(), Some("ab01"));
        assert_eq!(build_id_of_notes(&notes[..20]), None);
    }

    proptest::proptest! {
        #[test]
        fn damaged_notes_are_no_panic(bytes: Vec<u8>) {
            build_id_of_notes(&bytes);
        }
    }
}
