//! `-o FORMAT[=FILE]`: where results go, and writing them there.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;

/// A form that results can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// For reading in a terminal.
    Text,
    /// For programs.
    Json,
    /// For a browser, in one file.
    Html,
}

/// One `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Form.
    pub format: Format,
    /// File; `None` is standard output.
    pub file: Option<PathBuf>,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [("text", Format::Text), ("json", Format::Json), ("html", Format::Html)];
        let (format, file) = parse(text, &known)?;
        Ok(Self { format, file })
    }
}

/// Reads `FORMAT[=FILE]`, where the format is one of these; the file is `None` for standard output.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse<F: Copy>(text: &str, known: &[(&str, F)]) -> Result<(F, Option<PathBuf>), String> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(file)),
        None => (text, None),
    };
    let Some((_, format)) = known.iter().find(|(n, _)| *n == name) else {
        let names: Vec<&str> = known.iter().map(|(n, _)| *n).collect();
        let (last, others) = names.split_last().unwrap_or((&"", &[]));
        return Err(format!("no format {name:?}; there are {} and {last}", others.join(", ")));
    };
    let file = match file {
        Some("") => return Err(format!("no file name after {text:?}")),
        Some("-") | None => None,
        Some(file) => Some(PathBuf::from(file)),
    };
    Ok((*format, file))
}

/// Renders and writes every output that was asked for; text on standard output when none was.
/// `render` gets the form and whether colours are wanted.
///
/// # Errors
/// When rendering fails or a file cannot be written completely.
pub fn write_all(
    outputs: &[Output],
    color: bool,
    render: impl Fn(Format, bool) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let default = [Output { format: Format::Text, file: None }];
    let outputs = if outputs.is_empty() { &default[..] } else { outputs };
    for output in outputs {
        let text = render(output.format, color && output.file.is_none())?;
        write(output.file.as_deref(), &text)?;
    }
    Ok(())
}

/// Writes a result to its file, or to standard output when it has none.
///
/// # Errors
/// When it cannot be written completely.
pub fn write(file: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match file {
        None => write_stdout(text),
        Some(path) => write_file(path, text.as_bytes()),
    }
}

/// Writes to standard output. That nobody reads on (`altaz report … | head`) is no error.
///
/// # Errors
/// When it cannot be written for another reason.
pub fn write_stdout(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a file so that it is complete or not there: temporary file beside it, fsync, rename.
/// Devices and pipes (`/dev/stderr`) are written to directly.
///
/// # Errors
/// When it cannot be written completely (a full disk, a missing directory).
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", path.display());
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return std::fs::write(path, bytes).with_context(what);
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".altaz-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .with_context(what)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(what)?;
    file.persist(path).map_err(|e| e.error).with_context(what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_format_with_or_without_a_file() {
        let text = Output { format: Format::Text, file: None };
        assert_eq!("text".parse(), Ok(text.clone()));
        assert_eq!("text=-".parse(), Ok(text));
        let json = Output { format: Format::Json, file: Some("a=b.json".into()) };
        assert_eq!("json=a=b.json".parse(), Ok(json));
        assert!("yaml".parse::<Output>().unwrap_err().contains("text, json and html"));
        assert!("json=".parse::<Output>().is_err());
    }

    #[test]
    fn files_are_written_completely_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.json");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let error = write_file(&dir.path().join("no/such.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/such.json"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left over");
    }

    #[test]
    fn a_full_device_is_an_error_that_names_the_file() {
        let error = write_file(Path::new("/dev/full"), b"x").unwrap_err();
        assert!(crate::exit::message(&error).contains("/dev/full: No space left"), "{error:#}");
    }
}
