//! A tracepoint as tracefs describes it: its number and where its fields lie.
//!
//! Kernels move fields around; no offset of a tracepoint's field stands anywhere else.

use std::io;
use std::path::{Path, PathBuf};

use crate::asm::Size;
use crate::error::BpfError;

/// A field of a tracepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Offset in bytes.
    pub offset: i16,
    /// Size in bytes.
    pub size: usize,
}

/// A tracepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `group:name`.
    pub name: String,
    /// The number by which perf knows it.
    pub id: u64,
    /// Its fields.
    pub fields: Vec<Field>,
    /// The file it was read from.
    pub path: PathBuf,
}

impl Event {
    /// Reads a tracepoint's description below `tracefs`. `needs`: what brings the event.
    ///
    /// # Errors
    /// When there is no tracefs, no such event, or its file may not be read or makes no sense.
    pub fn read(
        tracefs: &Path,
        group: &str,
        name: &str,
        needs: &'static str,
    ) -> Result<Self, BpfError> {
        let full = format!("{group}:{name}");
        let path = tracefs.join("events").join(group).join(name).join("format");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(if tracefs.join("events").is_dir() {
                    BpfError::NoEvent { event: full, needs }
                } else {
                    BpfError::NoTracefs(tracefs.to_owned())
                });
            }
            Err(e) => return Err(BpfError::judge(format!("read {}", path.display()), "")(e)),
        };
        Self::parse(&full, &text, path.clone()).ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "no ID in it");
            BpfError::System { what: format!("read {}", path.display()), source }
        })
    }

    /// Parses a `format` file; `None` when it has no number.
    pub fn parse(name: &str, text: &str, path: PathBuf) -> Option<Self> {
        let id = text.lines().find_map(|l| l.strip_prefix("ID:"))?.trim().parse().ok()?;
        let fields = text.lines().filter_map(field).collect();
        Some(Self { name: name.to_owned(), id, fields, path })
    }

    /// Where a field lies and how wide a load it takes.
    ///
    /// # Errors
    /// When there is none of that name, or it is no number of 1, 2, 4 or 8 bytes.
    pub fn number(&self, name: &str) -> Result<(i16, Size), BpfError> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .and_then(|f| Some((f.offset, Size::of_bytes(f.size)?)))
            .ok_or_else(|| BpfError::NoField { path: self.path.clone(), field: name.to_owned() })
    }
}

/// Parses a line like `field:int x; offset:8; size:4; signed:1;` (with tabs between).
fn field(line: &str) -> Option<Field> {
    let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
    let declaration = parts.next()?;
    let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse::<u16>().ok();
    let (offset, size) = (number("offset:")?, number("size:")?);
    let name = declaration.split('[').next()?.rsplit([' ', '*']).next()?;
    Some(Field {
        name: name.to_owned(),
        offset: i16::try_from(offset).ok()?,
        // An array is no number, however long.
        size: if declaration.contains('[') { 0 } else { size.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `events/sched/sched_process_fork/format` of Linux 6.12, and a line of `kvm_exit`'s.
    const FORK: &str = "name: sched_process_fork
ID: 319
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char parent_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t parent_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] child_comm;\toffset:28;\tsize:4;\tsigned:0;
\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;
\tfield:const void * caller;\toffset:48;\tsize:8;\tsigned:0;

print fmt: \"comm=%s\", REC->parent_comm
";

    #[test]
    fn fields_are_found_where_the_format_says() {
        let e = Event::parse("sched:sched_process_fork", FORK, "f".into()).unwrap();
        assert_eq!(e.id, 319);
        assert_eq!(e.number("child_pid").unwrap(), (44, Size::B4));
        assert_eq!(e.number("caller").unwrap(), (48, Size::B8));
        assert_eq!(e.number("common_flags").unwrap(), (2, Size::B1));
        for no_number in ["parent_comm", "child_comm", "absent", ""] {
            assert!(e.number(no_number).is_err(), "{no_number}");
        }
    }

    #[test]
    fn a_missing_tracefs_and_a_missing_event_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let read = || Event::read(dir.path(), "kvm", "kvm_exit", "the module kvm").unwrap_err();
        assert!(matches!(read(), BpfError::NoTracefs(_)));
        std::fs::create_dir_all(dir.path().join("events/kvm")).unwrap();
        let e = read();
        assert!(e.to_string().contains("kvm:kvm_exit: the module kvm"), "{e}");
        let event = dir.path().join("events/kvm/kvm_exit");
        std::fs::create_dir_all(&event).unwrap();
        std::fs::write(event.join("format"), "no format").unwrap();
        assert!(matches!(read(), BpfError::System { .. }));
    }

    #[test]
    fn nonsense_in_a_format_is_no_field() {
        for line in [
            "field:",
            "field:;;;",
            "field:int x;\toffset:a;\tsize:4;",
            "field:int x;\toffset:8;",
            "field:int x;\toffset:65535;\tsize:4;\tsigned:1;",
            "",
            "print fmt: field:",
        ] {
            assert_eq!(field(line), None, "{line}");
        }
    }
}
