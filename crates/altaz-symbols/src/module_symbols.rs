//! A kernel module's file → names of the functions in it, static ones too.
//!
//! Modules keep their symbol table when they are stripped, since the kernel itself reads it at loading.
//! This says what a module *contains*; where it is loaded, `/proc/kallsyms` says.

use crate::SymbolError;
use crate::bytes::Budget;
use crate::elf::Elf;

/// Names of a module's functions, ascending, none twice.
///
/// # Errors
/// When the bytes are no ELF file, or their tables claim more than a file of this size can hold.
pub fn functions(data: &[u8]) -> Result<Vec<String>, SymbolError> {
    let elf = Elf::parse(data)?;
    let symbols = elf.symbols(&mut Budget::new(data.len()))?;
    let mut names: Vec<String> =
        symbols.iter().filter(|s| s.is_function).map(|s| s.name.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_an_error() {
        for data in [&b""[..], b"\x7fELF", &[0; 64]] {
            assert!(functions(data).is_err());
        }
    }

    #[test]
    fn functions_of_an_object_are_named() {
        // This test's own program is an ELF file with a symbol table.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = functions(&own).unwrap();
        assert!(names.iter().any(|n| n == "main"));
        assert!(names.is_sorted_by(|a, b| a < b));
    }
}
