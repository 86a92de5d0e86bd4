//! Writes cpio archives in the "newc" form that the kernel unpacks as its first root.
//!
//! Only writing, only what an initrd needs: directories, regular files, device nodes.

/// A cpio archive under construction.
#[derive(Debug, Default)]
pub struct CpioWriter {
    bytes: Vec<u8>,
    inode: u32,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl CpioWriter {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; `path` without a leading slash.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, S_IFDIR | permissions, &[], (0, 0));
    }

    /// Adds a regular file.
    ///
    /// Data of 4 GiB and more cannot be written in this format; the initrd never comes near.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.entry(path, S_IFREG | permissions, data, (0, 0));
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, S_IFCHR | permissions, &[], device);
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        // The kernel wants nothing more, other readers like whole blocks.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        self.inode += 1;
        let links = if mode & 0o170_000 == S_IFDIR { 2 } else { 1 };
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let fields = [
            self.inode,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            size,
            0, // device of the file system
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(&data[..size as usize]);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: (path, mode, data).
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name_at = at + 110;
            let name = String::from_utf8(bytes[name_at..name_at + name_size - 1].to_vec()).unwrap();
            let data_at = (name_at + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, mode as u32, bytes[data_at..data_at + size].to_vec()));
            at = (data_at + size).next_multiple_of(4);
        }
    }

    #[test]
    fn files_of_every_alignment_come_back() {
        let mut cpio = CpioWriter::new();
        cpio.directory("dev", 0o755);
        cpio.char_device("dev/console", 0o600, (5, 1));
        for len in 0..9usize {
            cpio.file(&"f".repeat(len + 1), 0o755, &vec![len as u8; len]);
        }
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 512, 0);
        let entries = read(&bytes);
        assert_eq!(entries.len(), 11);
        assert_eq!(entries[0], ("dev".into(), 0o040_755, vec![]));
        assert_eq!(entries[1].1, 0o020_600);
        for (len, entry) in entries[2..].iter().enumerate() {
            assert_eq!(entry.2, vec![len as u8; len]);
            assert_eq!(entry.1, 0o100_755);
        }
    }
}
