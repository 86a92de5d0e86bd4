//! Bytes of a binary or of a kernel → functions with bounds and names.
//!
//! This crate is pure: it takes bytes that somebody else read and returns values. There is no file, no process and
//! no `/proc` in it, and there must never be. Everything it decodes comes from outside (a service image, a guest,
//! a kernel package), so every decoder returns an error or less information on damaged input, never a panic, and
//! its memory and time are bounded by the size of the input.
//!
//! | module | from | to |
//! |---|---|---|
//! | [`functions`] | an ELF file | functions by file offset, covering every executable byte |
//! | [`eh_frame`], [`gopclntab`] | the tables of stripped binaries | function bounds (Go: names and lines too) |
//! | [`kallsyms`] | `/proc/kallsyms` | kernel functions, modules, the KASLR slide |
//! | [`kernel_image`], [`source_map`] | `vmlinuz` | the ELF image in it; functions → source files |
//! | [`module_symbols`] | a kernel module (`.ko`) | names of its functions |
//! | [`pages`], [`blocks`] | ELF files of an image | code pages by content |

pub mod blocks;
mod bytes;
mod claims;
mod debug_lines;
pub mod eh_frame;
pub mod elf;
mod error;
pub mod functions;
pub mod gopclntab;
pub mod kallsyms;
pub mod kernel_image;
mod layout;
mod lz4;
pub mod module_symbols;
pub mod names;
pub mod pages;
mod parts;
pub mod source_map;

pub use error::SymbolError;
pub use functions::{Binary, BinaryKind, Function, FunctionKind, Functions, Language};
pub use kallsyms::{Kallsyms, KernelFunction, SlideVote, syscall_name, vote_slide};
pub use kernel_image::{decompress_kernel, kernel_version};
pub use names::demangle;
pub use pages::{FileId, ImageFile, PageIndex, PageIndexBuilder, PageRef, hash_page};
pub use source_map::{Certainty, Source, SourceMap, module_source};
