//! OCI archives (`podman save`, `docker save`, `skopeo copy … oci-archive:`) flattened to one root.
//!
//! The archive comes from outside: sizes are bounded, digests are checked, and no entry of a layer
//! can name a place outside the root, because nothing is unpacked: layers are merged into a new
//! tar, entry by entry. The top layer wins, and whiteouts hide what is below them.

mod layout;
mod merge;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;
use layout::Archive;
use merge::Merger;

/// What an OCI image says about how it is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciConfig {
    /// Variables, as `NAME=value`.
    #[serde(default, rename = "Env", deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// First words of the command line.
    #[serde(default, rename = "Entrypoint", deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The other words of the command line.
    #[serde(default, rename = "Cmd", deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Working directory; empty for the root.
    #[serde(default, rename = "WorkingDir", deserialize_with = "or_default")]
    pub working_dir: String,
    /// User; empty for root.
    #[serde(default, rename = "User", deserialize_with = "or_default")]
    pub user: String,
}

/// Archives write `null` where others leave a key out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Why an archive cannot be used; the path is added outside.
type OciResult<T> = Result<T, String>;

/// Adapter for `map_err`: what was being read.
fn why<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> String {
    let what = what.into();
    move |e| format!("{what}: {e}")
}

/// Merges the archive's layers into the tar `out`; returns the image's configuration.
pub(super) fn flatten(path: &Path, out: &Path, interrupt: &Interrupt) -> Result<OciConfig> {
    let bad = |message: String| {
        if interrupt.is_set() {
            return LabError::Interrupted;
        }
        LabError::Oci { path: path.to_owned(), message }
    };
    let file = File::open(path).map_err(LabError::file("open", path))?;
    let archive = Archive::open(file).map_err(bad)?;
    let image = archive.image().map_err(bad)?;
    let to = File::create(out).map_err(LabError::file("create", out))?;
    let mut merger = Merger::new(BufWriter::with_capacity(1 << 20, to), interrupt.clone());
    // From the top: what is seen first hides what comes later.
    for layer in image.layers.iter().rev() {
        interrupt.check()?;
        archive.check_layer(layer).map_err(bad)?;
        merger
            .layer(|| archive.layer(layer))
            .map_err(why(format!("layer {}", layer.digest)))
            .map_err(bad)?;
    }
    merger.finish().map_err(bad)?.flush().map_err(LabError::file("write", out))?;
    Ok(image.config)
}

#[cfg(test)]
mod tests;
