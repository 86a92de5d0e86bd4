//! Images: root file systems with what is needed to boot or to attach them, built once and cached.
//!
//! An image is a directory named by the hash of everything that went into it. It is built under
//! another name, under a lock, and renamed when complete; what a killed builder left behind is
//! removed by the next one.

mod build;
mod cache;
mod oci;
mod service;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cache::{cache_dir, remove_all};
pub use oci::OciConfig;
pub use service::ServiceImage;

use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;
use crate::recipe::Recipe;
use crate::tarfiles::TarFiles;
use build::RootRecipe;
use cache::Cache;

/// Part of every image's hash: raise it when the builder makes something else of the same recipe.
const BUILDER_VERSION: u32 = 2;

/// What a build tells while it runs.
pub trait Progress {
    /// A step begins.
    fn step(&mut self, what: &str);
    /// A tool printed a line.
    fn line(&mut self, _line: &str) {}
}

/// Says nothing.
impl Progress for () {
    fn step(&mut self, _what: &str) {}
}

/// Gets the names of the steps.
impl<F: FnMut(&str)> Progress for F {
    fn step(&mut self, what: &str) {
        self(what);
    }
}

/// What a build needs besides the recipe.
pub struct BuildOptions<'a> {
    /// Directory of all cached images; see [`cache_dir`].
    pub cache: PathBuf,
    /// Where progress goes.
    pub progress: &'a mut dyn Progress,
    /// Stops the build.
    pub interrupt: Interrupt,
}

/// The lab's own image.
#[derive(Debug, Clone)]
pub struct LabImage {
    dir: PathBuf,
    manifest: LabManifest,
}

/// What is remembered of a lab image; `image.json` in its directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabManifest {
    /// Release of its kernel, as in `/lib/modules`.
    pub kernel_release: String,
    /// SHA-256 of `root.tar`, in hexadecimal.
    pub image_id: String,
    /// The recipe.
    pub recipe: Recipe,
    /// Seconds that the build took.
    pub build_seconds: f64,
}

impl LabImage {
    /// The image of a recipe, built now if it is not there yet.
    ///
    /// # Errors
    /// When a tool is missing or fails (no network, full disk …); the message holds what it said.
    pub fn ensure(recipe: &Recipe, options: &mut BuildOptions<'_>) -> Result<Self> {
        let hash = identity(recipe, &options.interrupt)?;
        let cache = Cache::new(&options.cache);
        let name = format!("lab-{}", &hash[..16]);
        let dir = cache.ensure(&name, options, |dir, options| build_lab(recipe, dir, options))?;
        Self::open(&dir)
    }

    /// The cached image of a recipe, if it was built; builds nothing.
    pub fn cached(recipe: &Recipe, cache: &Path) -> Option<Self> {
        let hash = identity(recipe, &Interrupt::new()).ok()?;
        Self::open(&cache.join(format!("lab-{}", &hash[..16]))).ok()
    }

    fn open(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), manifest: read_manifest(dir)? })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is remembered of it.
    pub fn manifest(&self) -> &LabManifest {
        &self.manifest
    }

    /// Release of its kernel.
    pub fn kernel_release(&self) -> &str {
        &self.manifest.kernel_release
    }

    /// The kernel, as a boot loader takes it.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The kernel's configuration.
    pub fn kernel_config(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// The root disk.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }

    /// The root as an uncompressed tar.
    pub fn root_tar(&self) -> PathBuf {
        self.dir.join("root.tar")
    }

    /// The root's table of contents.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn tar(&self) -> Result<TarFiles> {
        TarFiles::open(&self.root_tar())
    }
}

/// Hash of everything that goes into a lab image.
fn identity(recipe: &Recipe, interrupt: &Interrupt) -> Result<String> {
    let text = serde_json::to_string(recipe).unwrap_or_default();
    let version = BUILDER_VERSION.to_le_bytes();
    let mut parts: Vec<&[u8]> = vec![b"lab", &version, text.as_bytes()];
    let copies: Vec<(PathBuf, String)> = copies(recipe);
    let files = service::hash_trees(&copies, interrupt)?;
    // A recipe without copies has the identity that it always had.
    if !copies.is_empty() {
        parts.push(&files);
    }
    Ok(cache::hash(&parts))
}

fn copies(recipe: &Recipe) -> Vec<(PathBuf, String)> {
    recipe.copy.iter().map(|c| (c.from.clone(), c.to.clone())).collect()
}

fn read_manifest<T: serde::de::DeserializeOwned>(dir: &Path) -> Result<T> {
    let path = dir.join("image.json");
    let bytes = fs::read(&path).map_err(LabError::file("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|e| LabError::Image {
        path: dir.to_owned(),
        message: format!("has an unreadable image.json ({e})"),
    })
}

fn write_manifest<T: Serialize>(dir: &Path, manifest: &T) -> Result<()> {
    let path = dir.join("image.json");
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|e| LabError::file("write", &path)(std::io::Error::other(e)))?;
    fs::write(&path, bytes).map_err(LabError::file("write", &path))
}

fn build_lab(recipe: &Recipe, dir: &Path, options: &mut BuildOptions<'_>) -> Result<()> {
    let begin = std::time::Instant::now();
    let root = RootRecipe {
        what: "building the lab image",
        suite: &recipe.suite,
        mirror: &recipe.mirror,
        packages: &recipe.packages,
        exclude: &recipe.exclude,
        copy: &copies(recipe),
        setup: &recipe.setup,
    };
    build::root_tar(&root, dir, options)?;
    build::disk(dir, recipe.size_bytes(), options)?;
    options.progress.step("reading the lab's kernel");
    let tar = TarFiles::open(&dir.join("root.tar"))?;
    let release = tar
        .entries()
        .iter()
        .find_map(|e| e.path.strip_prefix("/boot/vmlinuz-"))
        .ok_or_else(|| LabError::Image {
            path: dir.to_owned(),
            message: "has no kernel: the recipe needs a linux-image package".into(),
        })?
        .to_owned();
    for (from, to) in [("vmlinuz", "vmlinuz"), ("config", "config")] {
        let path = dir.join(to);
        let bytes = tar.read(&format!("/boot/{from}-{release}"))?;
        fs::write(&path, bytes).map_err(LabError::file("write", &path))?;
    }
    let image_id = cache::hash_file(&dir.join("root.tar"), &options.interrupt)?;
    write_manifest(
        dir,
        &LabManifest {
            kernel_release: release,
            image_id,
            recipe: recipe.clone(),
            build_seconds: begin.elapsed().as_secs_f64(),
        },
    )
}
