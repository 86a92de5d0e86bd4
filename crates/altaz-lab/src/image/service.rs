//! Images of services: the same machinery as the lab's, from a recipe or an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};

use altaz_deploy::Image;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::build::{self, RootRecipe};
use super::cache::{self, Cache};
use super::oci::{self, OciConfig};
use super::{BUILDER_VERSION, BuildOptions, read_manifest, write_manifest};
use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;
use crate::tarfiles::TarFiles;

const MIRROR: &str = "http://deb.debian.org/debian";
const EXCLUDE: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// A built service image.
#[derive(Debug, Clone)]
pub struct ServiceImage {
    dir: PathBuf,
    manifest: ServiceManifest,
}

/// What is remembered of a service image; `image.json` in its directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceManifest {
    /// SHA-256 of `root.tar`, in hexadecimal: the identity of the image.
    pub image_id: String,
    /// The OCI archive's own configuration, if the image is one.
    pub oci: Option<OciConfig>,
    /// Seconds that the build took.
    pub build_seconds: f64,
}

impl ServiceImage {
    /// The image of a spec, built now if it is not there yet. It is found again by the hash of
    /// the recipe and of every file copied in, or of the OCI archive.
    ///
    /// # Errors
    /// When a file of the spec is missing, a tool is missing or fails, or the archive is bad.
    pub fn ensure(image: &Image, options: &mut BuildOptions<'_>) -> Result<Self> {
        options.progress.step("looking for the service image");
        let hash = identity(image, &options.interrupt)?;
        let cache = Cache::new(&options.cache);
        let name = format!("service-{}", &hash[..16]);
        let dir =
            cache.ensure(&name, options, |dir, options| build_service(image, dir, options))?;
        Ok(Self { manifest: read_manifest(&dir)?, dir })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SHA-256 of its root as a tar, in hexadecimal.
    pub fn image_id(&self) -> &str {
        &self.manifest.image_id
    }

    /// The OCI archive's own configuration, if the image is one.
    pub fn oci_config(&self) -> Option<&OciConfig> {
        self.manifest.oci.as_ref()
    }

    /// What is remembered of it.
    pub fn manifest(&self) -> &ServiceManifest {
        &self.manifest
    }

    /// The disk.
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

/// Hash of everything that decides what the image will be.
fn identity(image: &Image, interrupt: &Interrupt) -> Result<String> {
    let version = BUILDER_VERSION.to_le_bytes();
    match image {
        Image::Recipe { suite, packages, copy, setup, size } => {
            // Not where the copied files lie on the host: another checkout gives the same image.
            let text = serde_json::to_string(&(suite, packages, setup, size)).unwrap_or_default();
            let mut files = Sha256::new();
            for item in copy {
                hash_tree(&item.from, Path::new(&item.to), &mut files, interrupt)?;
            }
            Ok(cache::hash(&[b"service", &version, text.as_bytes(), &files.finalize()]))
        }
        Image::Oci { path, size } => {
            let content = cache::hash_file(path, interrupt)?;
            let size = size.unwrap_or(0).to_le_bytes();
            Ok(cache::hash(&[b"oci", &version, content.as_bytes(), &size]))
        }
    }
}

/// Hash of files and directories with the paths that they are copied to.
pub(super) fn hash_trees(copies: &[(PathBuf, String)], interrupt: &Interrupt) -> Result<Vec<u8>> {
    let mut sha = Sha256::new();
    for (from, to) in copies {
        hash_tree(from, Path::new(to), &mut sha, interrupt)?;
    }
    Ok(sha.finalize().to_vec())
}

/// Feeds names, permissions and contents below `from` into the hash, in a fixed order.
fn hash_tree(from: &Path, as_path: &Path, sha: &mut Sha256, interrupt: &Interrupt) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    interrupt.check()?;
    let meta = fs::symlink_metadata(from).map_err(LabError::file("read", from))?;
    let name = as_path.as_os_str().as_bytes();
    sha.update((name.len() as u64).to_le_bytes());
    sha.update(name);
    sha.update(meta.permissions().mode().to_le_bytes());
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(LabError::file("read", from))?;
        sha.update((target.as_os_str().len() as u64).to_le_bytes());
        sha.update(target.as_os_str().as_bytes());
    } else if meta.is_dir() {
        let list = || -> std::io::Result<Vec<_>> {
            let mut names: Vec<_> =
                fs::read_dir(from)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
            names.sort();
            Ok(names)
        };
        for name in list().map_err(LabError::file("list", from))? {
            hash_tree(&from.join(&name), &as_path.join(&name), sha, interrupt)?;
        }
    } else if meta.is_file() {
        sha.update(cache::hash_file(from, interrupt)?);
    }
    Ok(())
}

fn build_service(image: &Image, dir: &Path, options: &mut BuildOptions<'_>) -> Result<()> {
    let begin = std::time::Instant::now();
    let (oci, size) = match image {
        Image::Recipe { suite, packages, copy, setup, size } => {
            let copy: Vec<_> = copy.iter().map(|c| (c.from.clone(), c.to.clone())).collect();
            let exclude: Vec<String> = EXCLUDE.iter().map(|&glob| glob.to_owned()).collect();
            let recipe = RootRecipe {
                what: "building the service image",
                suite,
                mirror: MIRROR,
                packages,
                exclude: &exclude,
                copy: &copy,
                setup,
            };
            build::root_tar(&recipe, dir, options)?;
            (None, *size)
        }
        Image::Oci { path, size } => {
            options.progress.step("flattening the OCI archive");
            let config = oci::flatten(path, &dir.join("root.tar"), &options.interrupt)?;
            (Some(config), *size)
        }
    };
    let tar = dir.join("root.tar");
    let content = fs::metadata(&tar).map_err(LabError::file("read", &tar))?.len();
    // Room to write: half as much again and half a gigabyte, unless the spec says otherwise.
    let size = size.unwrap_or(content + content / 2 + (512 << 20));
    build::disk(dir, size, options)?;
    let image_id = cache::hash_file(&tar, &options.interrupt)?;
    let build_seconds = begin.elapsed().as_secs_f64();
    write_manifest(dir, &ServiceManifest { image_id, oci, build_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_deploy::Copy;

    fn recipe(dir: &Path) -> Image {
        Image::Recipe {
            suite: "trixie".into(),
            packages: vec!["nginx".into()],
            copy: vec![Copy { from: dir.join("app"), to: "/srv/app".into() }],
            setup: vec![],
            size: None,
        }
    }

    #[test]
    fn an_image_is_another_one_when_a_copied_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        fs::create_dir(&app).unwrap();
        fs::write(app.join("main.py"), b"one").unwrap();
        let id = || identity(&recipe(dir.path()), &Interrupt::new()).unwrap();
        let first = id();
        assert_eq!(first, id());
        fs::write(app.join("main.py"), b"two").unwrap();
        let second = id();
        assert_ne!(first, second);
        fs::rename(app.join("main.py"), app.join("other.py")).unwrap();
        assert_ne!(second, id());
    }

    #[test]
    fn an_image_is_the_same_wherever_its_files_lie() {
        let ids = [(); 2].map(|()| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("app")).unwrap();
            fs::write(dir.path().join("app/main.py"), b"one").unwrap();
            identity(&recipe(dir.path()), &Interrupt::new()).unwrap()
        });
        assert_eq!(ids[0], ids[1]);
    }

    #[test]
    fn a_missing_file_of_the_spec_is_named() {
        let error = identity(&recipe(Path::new("/nowhere")), &Interrupt::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/app"), "{error}");
    }
}
