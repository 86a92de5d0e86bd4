//! A small kernel: an ELF file with code and a `__bug_table`, and a bzImage around it.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::Write;

/// Link address of the code.
const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Symbols of the kernel, as if booted 32 MiB higher.
pub const KALLSYMS: &str = "\
ffffffff83000000 T _text
ffffffff83000100 T tcp_send
ffffffff83000200 t between_same_file
ffffffff83000300 t tcp_receive
ffffffff83000400 t between_files
ffffffff83000500 T udp_send
ffffffff83000600 t after_all
ffffffff83001000 T _etext
";

/// The ELF file. Anchors: tcp.c in `tcp_send` and, through a header, in `tcp_receive`, where tcp.c follows; udp.c.
pub fn vmlinux() -> Vec<u8> {
    let files = ["net/ipv4/tcp.c", "include/net/sock.h", "net/ipv4/udp.c"];
    let bugs = [(0x110, 0), (0x310, 1), (0x320, 0), (0x510, 2)];
    let (text_at, table_at, strings_at) = (0x1000usize, 0x2000usize, 0x2800usize);
    let mut out = vec![0u8; 0x3000];
    out[text_at..text_at + 0x1000].fill(0x55);
    let mut name_at = Vec::new();
    let mut at = strings_at;
    for file in files {
        name_at.push(at);
        out[at..at + file.len()].copy_from_slice(file.as_bytes());
        at += file.len() + 1;
    }
    for (i, (offset, file)) in bugs.iter().enumerate() {
        let entry = table_at + 12 * i;
        let addr = (text_at + offset) as i32 - entry as i32;
        let name = name_at[*file] as i32 - (entry as i32 + 4);
        out[entry..entry + 4].copy_from_slice(&addr.to_le_bytes());
        out[entry + 4..entry + 8].copy_from_slice(&name.to_le_bytes());
        out[entry + 8..entry + 10].copy_from_slice(&100u16.to_le_bytes());
    }
    let section_names = b"\0.text\0__bug_table\0.shstrtab\0";
    let names_at = out.len();
    out.extend_from_slice(section_names);
    out.resize(out.len().next_multiple_of(8), 0);
    let sections_at = out.len();
    let link = |file: usize| TEXT + file as u64 - text_at as u64;
    section(&mut out, 0, 0, 0, 0, 0, 0);
    section(&mut out, 1, 1, 6, TEXT, text_at, 0x1000);
    section(&mut out, 7, 1, 3, link(table_at), table_at, 12 * bugs.len());
    section(&mut out, 19, 3, 0, 0, names_at, section_names.len());
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut out, 16, &2u16.to_le_bytes());
    put(&mut out, 18, &62u16.to_le_bytes());
    put(&mut out, 32, &64u64.to_le_bytes());
    put(&mut out, 40, &(sections_at as u64).to_le_bytes());
    put(&mut out, 54, &56u16.to_le_bytes());
    put(&mut out, 56, &1u16.to_le_bytes());
    put(&mut out, 58, &64u16.to_le_bytes());
    put(&mut out, 60, &4u16.to_le_bytes());
    put(&mut out, 62, &3u16.to_le_bytes());
    // one segment over code, table and strings, readable and executable
    put(&mut out, 64, &1u32.to_le_bytes());
    put(&mut out, 68, &5u32.to_le_bytes());
    put(&mut out, 72, &(text_at as u64).to_le_bytes());
    put(&mut out, 80, &TEXT.to_le_bytes());
    put(&mut out, 96, &0x2000u64.to_le_bytes());
    put(&mut out, 104, &0x2000u64.to_le_bytes());
    out
}

fn section(out: &mut Vec<u8>, name: u32, kind: u32, flags: u64, addr: u64, at: usize, size: usize) {
    out.extend_from_slice(&name.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    for word in [flags, addr, at as u64, size as u64, 0, 1, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// One LZ4 block of literals in the legacy frame.
pub fn lz4(data: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    let mut rest = data.len() - 15;
    while rest >= 255 {
        block.push(255);
        rest -= 255;
    }
    block.push(rest as u8);
    block.extend_from_slice(data);
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    out.extend_from_slice(&(block.len() as u32).to_le_bytes());
    out.extend_from_slice(&block);
    out
}

/// A bzImage with this payload, four set-up sectors and a version.
pub fn bz_image(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0u8; 5 * 512 + 0x100];
    out[0x1f1] = 4;
    put(&mut out, 0x202, b"HdrS");
    put(&mut out, 0x206, &0x20fu16.to_le_bytes());
    put(&mut out, 0x20e, &0x300u16.to_le_bytes());
    put(&mut out, 0x500, b"6.12.0-test (somebody) #1\0");
    put(&mut out, 0x248, &0x100u32.to_le_bytes());
    put(&mut out, 0x24c, &(payload.len() as u32 + 4).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&0x3000u32.to_le_bytes());
    out
}
