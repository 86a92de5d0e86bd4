//! What can go wrong while decoding.

/// Why bytes could not be decoded. Each message says what was read, what is wrong with it and, where there is
/// something to do, what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// The file does not begin as an ELF file.
    #[error("not an ELF file: it does not begin with 7f 45 4c 46")]
    NotElf,
    /// An ELF file of a class or byte order that this crate does not read.
    #[error(
        "ELF file of an unsupported kind: {0}; only 64-bit little-endian files can be named, its code is counted as unnamed"
    )]
    UnsupportedElf(&'static str),
    /// The file ends before something its headers promise.
    #[error(
        "{what} is cut off or damaged: {detail}; if the file was copied, compare its size with the original"
    )]
    Damaged {
        /// What was being decoded.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A table claims more than a file of this size can honestly hold.
    #[error(
        "{what} claims {claimed}, more than the limit of {limit}; the file is damaged or hostile"
    )]
    TooLarge {
        /// What was being decoded.
        what: &'static str,
        /// The size or count it claims.
        claimed: u64,
        /// The limit it breaks.
        limit: u64,
    },
    /// `/proc/kallsyms` with all addresses zero.
    #[error(
        "kallsyms lists {symbols} symbols, all at address 0: the kernel hides addresses from this reader; read it as root with CAP_SYSLOG, or set kernel.kptr_restrict=0 (or 1)"
    )]
    KallsymsHidden {
        /// How many symbols were listed.
        symbols: usize,
    },
    /// Text that is not kallsyms.
    #[error("line {line} of kallsyms is not `ADDRESS TYPE NAME [MODULE]`: {text:?}")]
    KallsymsLine {
        /// Line number, from 1.
        line: usize,
        /// The beginning of the line.
        text: String,
    },
    /// A kernel image compressed with something that this crate does not decompress.
    #[error(
        "the kernel image is compressed with {0}, which altaz does not decompress; use a kernel built with CONFIG_KERNEL_ZSTD, CONFIG_KERNEL_GZIP or CONFIG_KERNEL_LZ4, or pass an uncompressed vmlinux"
    )]
    UnsupportedCompression(&'static str),
    /// A file of ours (page index) with another version.
    #[error(
        "{what} has format version {found}, this altaz reads version {expected}; delete the cached file, it is made again"
    )]
    Version {
        /// What was being decoded.
        what: &'static str,
        /// Version found in the file.
        found: u32,
        /// Version that this build reads.
        expected: u32,
    },
}

impl SymbolError {
    pub(crate) fn damaged(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Damaged { what, detail: detail.into() }
    }
}
