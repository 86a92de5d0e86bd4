//! The recipe of the lab image: what `lab/recipe.toml` says.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// The recipe that ships with altaz.
pub const BUILTIN: &str = include_str!("../../../lab/recipe.toml");

/// What goes into the lab image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Suite of the distribution.
    pub suite: String,
    /// Package archive.
    pub mirror: String,
    /// Size of the root disk, like `3G`.
    pub size: String,
    /// Packages besides the minimal base; no recommended ones come with them.
    pub packages: Vec<String>,
    /// Globs of paths that packages may not install.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Files of the host that no package has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<Copy>,
    /// Shell lines run in the new root at the end.
    #[serde(default)]
    pub setup: Vec<String>,
}

/// A file or directory copied into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// Path on the host; a relative one is relative to the recipe.
    pub from: PathBuf,
    /// Absolute path in the lab.
    pub to: String,
}

impl Recipe {
    /// The recipe that ships with altaz.
    ///
    /// # Errors
    /// Never for an unmodified altaz: a test parses it.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN, Path::new("lab/recipe.toml"))
    }

    /// Reads a recipe file.
    ///
    /// # Errors
    /// When it cannot be read or understood; with line and column.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(LabError::file("read the lab recipe", path))?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let wrong = |message: String| LabError::Recipe { path: PathBuf::from(path), message };
        let mut recipe: Self = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for file in &mut recipe.copy {
            file.from = dir.join(&file.from);
        }
        if size_in_bytes(&recipe.size).is_none() {
            return Err(wrong(format!("size = {:?} is not a size like \"3G\"", recipe.size)));
        }
        for (key, values) in [("packages", &recipe.packages), ("exclude", &recipe.exclude)] {
            let odd = |v: &&String| v.is_empty() || v.starts_with('-') || v.contains([',', '\n']);
            if let Some(value) = values.iter().find(odd) {
                return Err(wrong(format!("{key}: {value:?} is not usable")));
            }
        }
        Ok(recipe)
    }

    /// Size of the root disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        size_in_bytes(&self.size).unwrap_or(3 << 30)
    }
}

/// Bytes in a size like `3G`, `512M` or `1048576`.
fn size_in_bytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(['K', 'M', 'G']);
    let shift = match &size[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|&n| n >= 16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_recipe_is_valid() {
        let recipe = Recipe::builtin().unwrap();
        assert!(recipe.packages.iter().any(|p| p == "runc"));
        assert_eq!(recipe.size_bytes(), 3 << 30);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let text = "suite = \"trixie\"\nmirror = \"m\"\nsize = \"3G\"\npackages = []\ncolour = 1\n";
        let error = Recipe::parse(text, Path::new("r.toml")).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("line 5"), "{error}");
    }

    #[test]
    fn files_to_copy_are_beside_the_recipe_and_none_changes_no_hash() {
        let text = "suite = \"trixie\"\nmirror = \"m\"\nsize = \"3G\"\npackages = []\n\
                    copy = [{ from = \"fc\", to = \"/usr/local/bin/fc\" }]\n";
        let recipe = Recipe::parse(text, Path::new("/srv/lab/r.toml")).unwrap();
        assert_eq!(recipe.copy[0].from, Path::new("/srv/lab/fc"));
        let json = serde_json::to_string(&Recipe::builtin().unwrap()).unwrap();
        assert!(!json.contains("copy"), "the image of a recipe without copies stays the same");
    }

    #[test]
    fn sizes_have_units_and_a_sane_minimum() {
        assert_eq!(size_in_bytes("512M"), Some(512 << 20));
        assert_eq!(size_in_bytes("1"), None);
        assert_eq!(size_in_bytes("3X"), None);
        assert_eq!(size_in_bytes("99999999999999999999G"), None);
        assert_eq!(size_in_bytes("18446744073709551615G"), None);
    }
}
