//! Settings: a flag, else an `ALTAZ_*` variable (clap reads both), else `altaz.toml`, else a default.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::cli::GlobalArgs;
use crate::exit::UsageError;

/// Settings file that is read when none is named.
const DEFAULT_FILE: &str = "altaz.toml";

/// What a settings file may say. Paths in it are relative to its directory.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cache_dir: Option<PathBuf>,
    qemu: Option<String>,
    plugin: Option<PathBuf>,
    agent: Option<PathBuf>,
    recipe: Option<PathBuf>,
}

/// Resolved settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where built images are kept.
    pub cache_dir: PathBuf,
    /// QEMU; `None` leaves the choice to the lab.
    pub qemu: Option<String>,
    /// The exact instrument's plugin. It may not be there.
    pub plugin: PathBuf,
    /// The lab's agent; `None` lets the lab look for it.
    pub agent: Option<PathBuf>,
    /// Recipe of the lab image; `None` is the built-in one.
    pub recipe: Option<PathBuf>,
}

impl Settings {
    /// Resolves them.
    ///
    /// # Errors
    /// When a settings file cannot be read (one that was named), or says something unknown.
    pub fn resolve(args: &GlobalArgs) -> anyhow::Result<Self> {
        let named = args.config.as_deref();
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let file = match std::fs::read_to_string(path) {
            Ok(text) => File::parse(&text, path)?,
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                File::default()
            }
            Err(e) => {
                return Err(e).with_context(|| format!("cannot read settings {}", path.display()));
            }
        };
        let near = path.parent().unwrap_or(Path::new(""));
        let from_file = |p: Option<PathBuf>| p.map(|p| near.join(p));
        Ok(Self {
            cache_dir: args
                .cache_dir
                .clone()
                .or(from_file(file.cache_dir))
                .unwrap_or_else(altaz_lab::cache_dir),
            qemu: args.qemu.clone().or(file.qemu),
            plugin: args.plugin.clone().or(from_file(file.plugin)).unwrap_or_else(find_plugin),
            agent: args.agent.clone().or(from_file(file.agent)),
            recipe: args.recipe.clone().or(from_file(file.recipe)),
        })
    }
}

impl Settings {
    /// Puts what was chosen by flag or file where the lab looks for it: its variables. Must be
    /// called while the process has one thread.
    pub fn export(&self) {
        let qemu = self.qemu.as_ref().map(|qemu| (altaz_lab::qemu::QEMU_VARIABLE, qemu.into()));
        let agent = self.agent.as_ref().map(|path| (altaz_lab::AGENT_VARIABLE, path.into()));
        for (name, value) in qemu.into_iter().chain(agent) {
            let value: std::ffi::OsString = value;
            // SAFETY: nothing reads the environment at the same time, there is one thread only.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

impl File {
    fn parse(text: &str, path: &Path) -> Result<Self, UsageError> {
        toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            UsageError(format!("{}:{line}:{column}: {}", path.display(), e.message()))
        })
    }
}

/// The plugin beside the running program, or in the build tree around it, or where a package puts
/// it. The first place when it is nowhere.
fn find_plugin() -> PathBuf {
    const NAME: &str = "libaltaz_plugin.so";
    let exe = std::env::current_exe().unwrap_or_default();
    let places: Vec<PathBuf> = exe
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|dir| [dir.join(NAME), dir.join("lib/altaz").join(NAME)])
        .collect();
    let found = places.iter().find(|path| path.is_file()).or(places.first());
    found.cloned().unwrap_or_else(|| NAME.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &GlobalArgs) -> anyhow::Result<Settings> {
        Settings::resolve(args)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        std::fs::write(&path, "cache_dir = \"c\"\nqemu = \"/q\"\n").unwrap();
        let mut args = GlobalArgs { config: Some(path), ..GlobalArgs::default() };
        let settings = resolve(&args).unwrap();
        assert_eq!(settings.cache_dir, dir.path().join("c"), "relative to the file");
        assert_eq!(settings.qemu.as_deref(), Some("/q"));
        args.cache_dir = Some("/flag".into());
        assert_eq!(resolve(&args).unwrap().cache_dir, Path::new("/flag"));
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_place() {
        let error = File::parse("qemu = \"q\"\n\ncolour = 1\n", Path::new("a.toml")).unwrap_err();
        assert!(error.to_string().starts_with("a.toml:3:1: unknown field `colour`"), "{error}");
    }

    #[test]
    fn a_settings_file_that_was_named_must_be_there() {
        let args = GlobalArgs { config: Some("/no/such.toml".into()), ..GlobalArgs::default() };
        let error = resolve(&args).unwrap_err();
        assert!(error.to_string().contains("/no/such.toml"), "{error}");
    }
}
