//! Where things are in a ring-buffer page: parsed from tracefs' `events/header_page`, `events/header_event` and
//! `events/ftrace/function/format`, because sub-buffer sizes and record layouts differ between kernels.
//!
//! Pure: text in, offsets out. Byte order is this machine's: a page is read where it was written.

/// Layout of a page and of the function tracer's records in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a whole page (the kernel's sub-buffer), header included.
    pub page_size: usize,
    /// Offset of the `commit` word.
    pub commit: usize,
    /// Bytes of the `commit` word: 4 or 8.
    pub commit_size: usize,
    /// Offset of the first event.
    pub data: usize,
    /// `common_type` of function records.
    pub function_id: u16,
    /// Offsets in a record.
    pub record: Record,
}

/// Offsets of the fields of a function record, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// `common_type`, 2 bytes.
    pub kind: usize,
    /// `common_flags`, 1 byte.
    pub flags: usize,
    /// `common_preempt_count`, 1 byte.
    pub preempt: usize,
    /// `common_pid`, 4 bytes: the thread.
    pub pid: usize,
    /// `ip`, 8 bytes: the traced function.
    pub ip: usize,
    /// `parent_ip`, 8 bytes, where there is one.
    pub parent: Option<usize>,
    /// A record is at least this long: the end of the last field above.
    pub len: usize,
}

/// What is wrong with one of the three files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A field is missing.
    #[error("no field \"{0}\"")]
    Missing(&'static str),
    /// A field has a size that altaz cannot read.
    #[error("field \"{name}\" is {size} bytes long, not {expected}")]
    Size {
        /// The field.
        name: &'static str,
        /// Its size.
        size: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// The event header is not of 5 and 27 bits, or the special types have other numbers.
    #[error("the event header says \"{0}\"")]
    Header(String),
    /// The page is absurdly small or large.
    #[error("a page of {0} bytes")]
    Page(usize),
}

/// The largest page that is believed; sub-buffers go up to 2^7 pages of 64 KiB.
const LARGEST_PAGE: usize = 8 << 20;

impl Layout {
    /// The layout of 64-bit kernels since 2.6.39 with 4 KiB sub-buffers.
    pub fn usual() -> Self {
        Self {
            page_size: 4096,
            commit: 8,
            commit_size: 8,
            data: 16,
            function_id: 1,
            record: Record {
                kind: 0,
                flags: 2,
                preempt: 3,
                pid: 4,
                ip: 8,
                parent: Some(16),
                len: 24,
            },
        }
    }

    /// Reads the three files' texts.
    ///
    /// # Errors
    /// When a field that is needed is missing or has an unknown size.
    pub fn parse(
        header_page: &str,
        header_event: &str,
        function_format: &str,
    ) -> Result<Self, LayoutError> {
        header(header_event)?;
        let timestamp = field(header_page, "timestamp")?;
        if timestamp != (0, 8) {
            return Err(LayoutError::Size {
                name: "timestamp",
                size: timestamp.1,
                expected: "8, first",
            });
        }
        let (commit, commit_size) = field(header_page, "commit")?;
        if !matches!(commit_size, 4 | 8) {
            return Err(LayoutError::Size {
                name: "commit",
                size: commit_size,
                expected: "4 or 8",
            });
        }
        let (data, data_size) = field(header_page, "data")?;
        let page_size = data.saturating_add(data_size);
        if data_size < 16 || page_size > LARGEST_PAGE || commit.saturating_add(commit_size) > data {
            return Err(LayoutError::Page(page_size));
        }
        let sized = |name, size| {
            let (at, found) = field(function_format, name)?;
            if found == size && at < 4096 {
                Ok(at)
            } else {
                let expected = ["0", "1", "2", "", "4", "", "", "", "8"][size];
                Err(LayoutError::Size { name, size: found, expected })
            }
        };
        let mut record = Record {
            kind: sized("common_type", 2)?,
            flags: sized("common_flags", 1)?,
            preempt: sized("common_preempt_count", 1)?,
            pid: sized("common_pid", 4)?,
            ip: sized("ip", 8)?,
            parent: sized("parent_ip", 8).ok(),
            len: 0,
        };
        record.len =
            [record.kind + 2, record.flags + 1, record.preempt + 1, record.pid + 4, record.ip + 8]
                .into_iter()
                .chain(record.parent.map(|p| p + 8))
                .max()
                .unwrap_or(0);
        let function_id = function_format
            .lines()
            .find_map(|l| l.strip_prefix("ID:")?.trim().parse().ok())
            .ok_or(LayoutError::Missing("ID"))?;
        Ok(Self { page_size, commit, commit_size, data, function_id, record })
    }
}

/// The bits of an event's header must be the ones that [`crate::page`] decodes.
fn header(text: &str) -> Result<(), LayoutError> {
    for (name, value) in [
        ("type_len", "5 bits"),
        ("time_delta", "27 bits"),
        ("padding", "type == 29"),
        ("time_extend", "type == 30"),
        ("data max type_len", "28"),
    ] {
        let line = text.lines().find(|l| l.trim_start().starts_with(name));
        let line = line.ok_or(LayoutError::Missing(match name {
            "type_len" => "type_len",
            "time_delta" => "time_delta",
            "padding" => "padding",
            "time_extend" => "time_extend",
            _ => "data max type_len",
        }))?;
        if !line.trim_end().ends_with(value) {
            return Err(LayoutError::Header(line.trim().to_owned()));
        }
    }
    Ok(())
}

/// Offset and size of `\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;`.
fn field(text: &str, name: &'static str) -> Result<(usize, usize), LayoutError> {
    let parse = |line: &str| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let declared = parts.next()?.rsplit([' ', '*']).next()?.split('[').next()?;
        if declared != name {
            return None;
        }
        let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
        Some((offset, size))
    };
    text.lines().find_map(parse).ok_or(LayoutError::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    // From a Debian 6.12 kernel.
    const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
        \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
        \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
        \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";
    const EVENT: &str = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\
        \tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n\
        \ttime_stamp : type == 31\n\tdata max type_len  == 28\n";
    const FUNCTION: &str = "name: function\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;\n\n\
        print fmt: \" %ps <-- %ps\", (void *)REC->ip, (void *)REC->parent_ip\n";

    #[test]
    fn a_debian_kernel_has_the_usual_layout() {
        assert_eq!(Layout::parse(PAGE, EVENT, FUNCTION), Ok(Layout::usual()));
    }

    #[test]
    fn a_newer_kernel_adds_arguments_behind_and_larger_pages() {
        let function = FUNCTION.replace(
            "\n\nprint",
            "\n\tfield:unsigned long args[0];\toffset:24;\tsize:0;\tsigned:0;\n\nprint",
        );
        let page = PAGE.replace("4080", "65520");
        let layout = Layout::parse(&page, EVENT, &function).unwrap();
        assert_eq!(layout, Layout { page_size: 65536, ..Layout::usual() });
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        let short = FUNCTION.replace("offset:8;\tsize:8", "offset:8;\tsize:4");
        assert!(matches!(
            Layout::parse(PAGE, EVENT, &short),
            Err(LayoutError::Size { name: "ip", size: 4, .. })
        ));
        let bits = EVENT.replace("27 bits", "28 bits");
        assert!(matches!(Layout::parse(PAGE, &bits, FUNCTION), Err(LayoutError::Header(_))));
        for (p, e, f) in [("", EVENT, FUNCTION), (PAGE, "", FUNCTION), (PAGE, EVENT, "")] {
            assert!(matches!(Layout::parse(p, e, f), Err(LayoutError::Missing(_))));
        }
        let huge = PAGE.replace("4080", "18446744073709551615");
        assert!(matches!(Layout::parse(&huge, EVENT, FUNCTION), Err(LayoutError::Page(_))));
    }
}
