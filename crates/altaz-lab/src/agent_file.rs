//! Finds the static agent binary on the host.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// Variable that names the agent binary.
pub const AGENT_VARIABLE: &str = "ALTAZ_AGENT";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The agent binary: its path and bytes.
#[derive(Debug, Clone)]
pub struct AgentFile {
    /// Where it was found.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl AgentFile {
    /// Looks at `ALTAZ_AGENT`, then beside the running program and in the build tree around it.
    ///
    /// # Errors
    /// When there is none, or only a dynamically linked one.
    pub fn find() -> Result<Self> {
        if let Some(path) = env::var_os(AGENT_VARIABLE) {
            return Self::load(Path::new(&path));
        }
        let exe = env::current_exe().map_err(LabError::system("find the running program"))?;
        let mut problem = String::new();
        let mut tried = Vec::new();
        for path in candidates(&exe) {
            if !path.is_file() {
                tried.push(path.display().to_string());
                continue;
            }
            match Self::load(&path) {
                Ok(found) => return Ok(found),
                Err(LabError::Agent { problem: p }) => problem = p,
                Err(e) => return Err(e),
            }
        }
        if problem.is_empty() {
            problem = format!("was not found (looked for {})", tried.join(", "));
        }
        Err(LabError::Agent { problem })
    }

    fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(LabError::file("read the lab's agent", path))?;
        match is_static_elf(&bytes) {
            Some(true) => Ok(Self { path: path.to_owned(), bytes }),
            Some(false) => Err(LabError::Agent {
                problem: format!(
                    "{} is dynamically linked; the lab needs a static one",
                    path.display()
                ),
            }),
            None => {
                Err(LabError::Agent { problem: format!("{} is no x86-64 program", path.display()) })
            }
        }
    }
}

fn candidates(exe: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    // The program may be target/release/altaz, target/debug/deps/test-…, target/debug/examples/….
    for dir in exe.ancestors().skip(1).take(4) {
        out.push(dir.join("altaz-agent"));
        out.push(dir.join(TARGET).join("release/altaz-agent"));
        out.push(dir.join("lib/altaz/altaz-agent"));
    }
    out
}

/// Whether an x86-64 ELF file needs no dynamic linker; `None` if it is no such file.
fn is_static_elf(bytes: &[u8]) -> Option<bool> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    const PT_INTERP: u32 = 3;
    const X86_64: u16 = 62;
    if bytes.get(..5)? != b"\x7fELF\x02" || u16_at(18)? != X86_64 {
        return None;
    }
    let (at, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    for n in 0..usize::from(count) {
        let header = usize::try_from(at).ok()?.checked_add(n.checked_mul(usize::from(size))?)?;
        if header.checked_add(4)? > bytes.len() {
            return None;
        }
        if u32_at(header)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_is_a_dynamic_program_and_text_is_none() {
        let me = fs::read(env::current_exe().unwrap()).unwrap();
        assert_eq!(is_static_elf(&me), Some(false));
        assert_eq!(is_static_elf(b"#!/bin/sh\n"), None);
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = b"\x7fELF\x02".to_vec();
            file.extend(bytes);
            let _ = is_static_elf(&file);
        }
    }
}
