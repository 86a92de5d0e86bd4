//! The code that an image holds: its executable pages, kept beside the image, and its files, read from
//! the image's archive when they are needed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use altaz_collect::exact::naming::{CodeImage, SourceOf};
use altaz_lab::tarfiles::TarFiles;
use altaz_profile::rules::Origin;
use altaz_symbols::source_map::module_source;
use altaz_symbols::{ImageFile, Kallsyms, PageIndex, PageIndexBuilder, SourceMap};
use anyhow::{Context, Result};

use crate::output::write_file;

/// Name of the index's file in an image's directory.
const INDEX: &str = "code-pages.idx";

/// The executable pages and files of an image.
pub struct ImageCode {
    /// Its pages.
    pub index: PageIndex,
    tar: TarFiles,
}

impl ImageCode {
    /// Reads the index beside the image, or makes it.
    pub fn open(dir: &Path, tar: &Path) -> Result<Self> {
        let tar = TarFiles::open(tar)?;
        let path = dir.join(INDEX);
        // A missing, old or damaged index is simply made again.
        let kept = fs::read(&path).ok().and_then(|bytes| PageIndex::from_bytes(&bytes).ok());
        let index = match kept {
            Some(index) => index,
            None => {
                let index = build(&tar)?;
                write_file(&path, &index.to_bytes())
                    .with_context(|| format!("keeping the code index {}", path.display()))?;
                index
            }
        };
        Ok(Self { index, tar })
    }

    /// Its files.
    pub fn files(&self) -> &TarFiles {
        &self.tar
    }

    /// The image as naming wants it.
    pub fn as_source(&self, origin: Origin) -> CodeImage<'_> {
        let read = move |file: &ImageFile| self.tar.read(&file.path).map_err(io::Error::other);
        CodeImage { origin, index: &self.index, read: Box::new(read) }
    }

    /// Hashes of all executable pages of a file; empty when the image does not have it.
    pub fn pages_of(&self, path: &str) -> Result<Vec<u128>> {
        let Some(file) = self.index.file_by_path(path).and_then(|id| self.index.file(id)) else {
            return Ok(Vec::new());
        };
        let bytes = self.tar.read(&file.path)?;
        let size = altaz_symbols::pages::PAGE_SIZE as u64;
        let numbers = file
            .exec
            .iter()
            .flat_map(|s| s.file_offset / size..(s.file_offset + s.size).div_ceil(size));
        Ok(numbers
            .filter_map(|n| u32::try_from(n).ok())
            .map(|n| altaz_symbols::hash_page(&altaz_symbols::pages::file_page(&bytes, n)))
            .collect())
    }
}

fn build(tar: &TarFiles) -> Result<PageIndex> {
    let mut builder = PageIndexBuilder::new();
    let mut by_place: HashMap<u64, altaz_symbols::FileId> = HashMap::new();
    for file in tar.files() {
        let mut magic = [0; 4];
        if file.len < 64 {
            continue;
        }
        tar.read_at(file.offset, &mut magic)?;
        if &magic != b"\x7fELF" {
            continue;
        }
        if let Some(id) = by_place.get(&file.offset) {
            builder.add_alias(*id, file.path);
            continue;
        }
        let mut bytes = vec![0; usize::try_from(file.len).unwrap_or(0)];
        tar.read_at(file.offset, &mut bytes)?;
        if let Some(id) = builder.add(file.path, &bytes, Some(file.offset)) {
            by_place.insert(file.offset, id);
        }
    }
    Ok(builder.finish())
}

/// An index of one in-memory ELF image (the vDSO).
pub fn single(name: &str, bytes: &[u8]) -> PageIndex {
    let mut builder = PageIndexBuilder::new();
    builder.add(name, bytes, None);
    builder.finish()
}

/// What the kernel's image and the module files of the lab say about the kernel's code.
pub struct KernelFacts {
    /// Build-id of the kernel.
    pub build_id: Option<Arc<str>>,
    /// Finds the source file of a function.
    pub source: SourceOf,
}

/// Reads them. A kernel of another kind, without a bug table, leaves its functions without a source
/// file; that is no error.
pub fn kernel_facts(vmlinuz: &Path, kallsyms: &Kallsyms, lab: &ImageCode) -> KernelFacts {
    let elf = fs::read(vmlinuz)
        .ok()
        .and_then(|image| altaz_symbols::decompress_kernel(&image).ok())
        .unwrap_or_default();
    let map = SourceMap::new(&elf, kallsyms).unwrap_or_default();
    let build_id = altaz_symbols::elf::Elf::parse(&elf).ok().and_then(|e| e.build_id());
    let modules: HashMap<String, Arc<str>> = lab
        .tar
        .files()
        .filter_map(|f| module_source(f.path))
        .map(|(module, directory)| (module, format!("{directory}/").into()))
        .collect();
    let source = move |module: Option<&str>, offset: u64| match module {
        Some(module) => modules.get(module).cloned(),
        None => map.source(offset).map(|s| s.label().into()),
    };
    KernelFacts { build_id: build_id.map(Arc::from), source: Arc::new(source) }
}
