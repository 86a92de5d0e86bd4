//! What was installed where a profile was recorded: packages with their versions, the files that
//! belong to them, and what the kernel was built from.
//!
//! Plain values. A profile's manifest holds them without the lists of all functions; a file of its
//! own (`inventory.json`) holds them too, and serves older profiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Layer;

/// Schema identifier of `inventory.json`.
pub const INVENTORY_SCHEMA: &str = "altaz.inventory/1";

/// An inventory in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// [`INVENTORY_SCHEMA`].
    pub schema: String,
    /// The places with installed software, each once.
    pub places: Vec<Place>,
}

/// A root file system and the layers whose code comes from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name (`host`, `service image`).
    pub name: String,
    /// Layers whose code comes from it.
    pub layers: Vec<Layer>,
    /// Distribution (`ID` of os-release, `debian`), where it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// Code name of its release (`trixie`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
    /// Its version (`13`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Installed packages.
    pub packages: Vec<Package>,
    /// Package of each executable and library, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Its kernel, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelInventory>,
}

/// An installed package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`amd64`).
    pub arch: String,
    /// Source package that it was built from.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
}

/// What a kernel consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInventory {
    /// Release (`uname -r`).
    pub release: String,
    /// Package that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Loadable modules that are installed.
    pub modules: Vec<KernelModule>,
    /// What is built in and could have been a module (`modules.builtin`), as paths below the source
    /// tree without suffix (`fs/ext4/ext4`).
    pub builtin: Vec<String>,
    /// Names of all functions of the kernel proper, ascending. Empty: not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// Whether the functions of the kernel and of every installed module are listed: only then does a
    /// missing name say anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lists_all_functions: bool,
    /// SHA-256 of its configuration file, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_sha256: Option<String>,
}

/// A loadable module of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelModule {
    /// Its name, with underscores.
    pub name: String,
    /// Its directory in the source tree (`drivers/net`).
    pub directory: String,
    /// Whether it was loaded when the recording ended. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<bool>,
    /// Names of its functions, ascending. Empty: not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
}

impl Place {
    /// The same without the lists of all functions: what a manifest holds.
    pub fn compact(&self) -> Self {
        let mut place = self.clone();
        if let Some(kernel) = &mut place.kernel {
            kernel.functions = Vec::new();
            kernel.lists_all_functions = false;
            kernel.modules.iter_mut().for_each(|m| m.functions = Vec::new());
        }
        place
    }

    /// The installed package of this name.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|p| p.name == name)
    }

    /// Package of a binary, by its path; `/lib` and `/usr/lib` are one directory.
    pub fn package_of(&self, path: &str) -> Option<&Package> {
        let other = match path.strip_prefix("/usr") {
            Some(rest) => rest.to_owned(),
            None => format!("/usr{path}"),
        };
        let name = self.files.get(path).or_else(|| self.files.get(&other))?;
        self.package(name)
    }
}
