//! The archive's own structure: index, manifest, configuration, blobs. Nothing of the root.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{OciConfig, OciResult, why};

/// Largest JSON document of an archive, in bytes.
const MAX_JSON: u64 = 8 << 20;
/// Indexes that may be nested in each other.
const MAX_DEPTH: u32 = 4;

/// An open archive: where its files are.
pub(super) struct Archive {
    file: File,
    /// (offset, length) by path.
    places: HashMap<String, (u64, u64)>,
}

/// A blob that an index or manifest names.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    #[serde(default, rename = "mediaType")]
    media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<OciConfig>,
}

/// The image of an archive.
pub(super) struct ImageInArchive {
    pub(super) config: OciConfig,
    /// From the bottom to the top.
    pub(super) layers: Vec<Descriptor>,
}

impl Archive {
    /// Reads the table of contents.
    pub(super) fn open(file: File) -> OciResult<Self> {
        let mut places = HashMap::new();
        let mut list = || -> io::Result<()> {
            let mut archive = tar::Archive::new(file.try_clone()?);
            for entry in archive.entries_with_seek()? {
                let entry = entry?;
                let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let path = path.trim_start_matches("./").to_owned();
                if entry.header().entry_type().is_file() {
                    places.insert(path, (entry.raw_file_position(), entry.size()));
                }
            }
            Ok(())
        };
        list().map_err(why("is not a readable tar (a compressed one must be unpacked first)"))?;
        Ok(Self { file, places })
    }

    /// The image for this machine.
    pub(super) fn image(&self) -> OciResult<ImageInArchive> {
        if !self.places.contains_key("index.json") {
            return Err(if self.places.contains_key("manifest.json") {
                "is in Docker's old format, without index.json; save it with Docker 25 or newer, \
                 `podman save --format oci-archive`, or `skopeo copy docker-archive:… oci-archive:…`"
                    .into()
            } else {
                "is no OCI archive: it has no index.json; make one with `podman save --format \
                 oci-archive`, `docker save` or `skopeo copy … oci-archive:…`"
                    .into()
            });
        }
        let index: Index = self.json("index.json")?;
        let manifest = self.manifest(index, 0)?;
        let config: ConfigFile = self.blob_json(&manifest.config.digest)?;
        if !matches!(config.architecture.as_str(), "" | "amd64") {
            return Err(format!("is for {}, the lab is amd64", config.architecture));
        }
        if manifest.layers.is_empty() {
            return Err("has no layers".into());
        }
        Ok(ImageInArchive { config: config.config.unwrap_or_default(), layers: manifest.layers })
    }

    /// The manifest that an index leads to, through nested indexes.
    fn manifest(&self, index: Index, depth: u32) -> OciResult<Manifest> {
        if depth > MAX_DEPTH {
            return Err("has indexes nested too deep".into());
        }
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_none_or(|p| p.architecture == "amd64" && p.os == "linux")
        };
        let mut candidates: Vec<_> = index.manifests.iter().filter(fits).collect();
        // An image saved under several names is there once for each.
        candidates.dedup_by(|a, b| a.digest == b.digest);
        let chosen = match candidates.as_slice() {
            [one] => one,
            [] => return Err("has no image for linux/amd64".into()),
            several => {
                return Err(format!("holds {} images; save one of them alone", several.len()));
            }
        };
        if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
            return self.manifest(self.blob_json(&chosen.digest)?, depth + 1);
        }
        self.blob_json(&chosen.digest)
    }

    /// Checks a layer's bytes against its digest.
    pub(super) fn check_layer(&self, layer: &Descriptor) -> OciResult<()> {
        let (offset, len) = self.place(&blob_path(&layer.digest)?)?;
        self.check_digest(&layer.digest, offset, len)
    }

    /// A layer's bytes, decompressed.
    pub(super) fn layer(&self, layer: &Descriptor) -> OciResult<Box<dyn Read + '_>> {
        let (offset, len) = self.place(&blob_path(&layer.digest)?)?;
        let mut magic = [0; 4];
        let head = usize::try_from(len.min(4)).unwrap_or(4);
        self.file.read_exact_at(&mut magic[..head], offset).map_err(why("reading a layer"))?;
        let plain = BufReader::with_capacity(1 << 18, Section { file: &self.file, offset, len });
        // By content: media types and compression do not always agree.
        Ok(match magic {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(plain)),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                Box::new(zstd::Decoder::with_buffer(plain).map_err(why("reading a zstd layer"))?)
            }
            _ => Box::new(plain),
        })
    }

    fn check_digest(&self, digest: &str, offset: u64, len: u64) -> OciResult<()> {
        let mut section = Section { file: &self.file, offset, len };
        let mut sha = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match section.read(&mut buffer).map_err(why("reading a blob"))? {
                0 => break,
                n => sha.update(&buffer[..n]),
            }
        }
        let found: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
        match digest.strip_prefix("sha256:") {
            Some(wanted) if wanted == found => Ok(()),
            _ => Err(format!("is damaged: blob {digest} has the digest sha256:{found}")),
        }
    }

    fn place(&self, path: &str) -> OciResult<(u64, u64)> {
        self.places.get(path).copied().ok_or_else(|| format!("is incomplete: it has no {path}"))
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> OciResult<T> {
        let (offset, len) = self.place(path)?;
        if len > MAX_JSON {
            return Err(format!("has a {path} of {len} bytes, which is no description"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, offset).map_err(why(format!("reading {path}")))?;
        serde_json::from_slice(&bytes).map_err(why(format!("has an unreadable {path}")))
    }

    fn blob_json<T: DeserializeOwned>(&self, digest: &str) -> OciResult<T> {
        let path = blob_path(digest)?;
        let (offset, len) = self.place(&path)?;
        self.check_digest(digest, offset, len.min(MAX_JSON + 1))?;
        self.json(&path)
    }
}

fn blob_path(digest: &str) -> OciResult<String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("names a blob by {digest:?}, not by a SHA-256 digest"));
    }
    Ok(format!("blobs/sha256/{hex}"))
}

/// A part of a file, read in place.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    len: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.len).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += n as u64;
        self.len -= n as u64;
        Ok(n)
    }
}
