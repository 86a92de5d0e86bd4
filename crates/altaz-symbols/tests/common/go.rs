//! A Go function table written by hand, after the layouts in Go's `runtime/symtab.go` of each version.
#![allow(dead_code, reason = "each test uses a part")]

/// Which layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    V116,
    V118,
    V120,
}

/// Name, distance from the text, file, line of the declaration.
pub const FUNCTIONS: [(&str, u32, &str, u32); 3] = [
    ("runtime.text_start", 0, "/go/src/runtime/asm.s", 10),
    ("main.main", 0x40, "/app/main.go", 7),
    ("main.(*Server).handle", 0x100, "/app/server.go", 300),
];
/// Where the last function ends.
pub const END: u32 = 0x180;

/// The table of [`FUNCTIONS`] for a program whose text is at `text`; `in_header`: the header says so itself.
pub fn table(version: Go, text: u64, in_header: bool) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut name_at = Vec::new();
    let (mut files, mut units) = (vec![], vec![]);
    let mut pc_values = vec![0u8];
    let mut values_at = Vec::new();
    for (i, (name, _, file, line)) in FUNCTIONS.iter().enumerate() {
        name_at.push(names.len() as u32);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        units.extend_from_slice(&(files.len() as u32).to_le_bytes());
        files.extend_from_slice(file.as_bytes());
        files.push(0);
        let file_values = pc_values.len() as u32;
        put_value(&mut pc_values, i as u32);
        let line_values = pc_values.len() as u32;
        put_value(&mut pc_values, *line);
        values_at.push((file_values, line_values));
    }
    let old = version == Go::V116;
    let entry_size = if old { 16 } else { 8 };
    let list_size = FUNCTIONS.len() * entry_size + if old { 8 } else { 4 };
    let mut list = Vec::new();
    let mut infos = Vec::new();
    for (i, (_, start, _, line)) in FUNCTIONS.iter().enumerate() {
        let info_at = list_size.next_multiple_of(8) + infos.len();
        if old {
            put64(&mut list, text + u64::from(*start));
            put64(&mut list, info_at as u64);
            put64(&mut infos, text + u64::from(*start));
        } else {
            put32(&mut list, *start);
            put32(&mut list, info_at as u32);
            put32(&mut infos, *start);
        }
        // name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit, line or flags
        let last = if version == Go::V120 { *line } else { 0 };
        let (file_values, line_values) = values_at[i];
        // One compilation unit: function i is in its file number i.
        for field in [name_at[i], 0, 0, 0, file_values, line_values, 0, 0, last] {
            put32(&mut infos, field);
        }
        infos.extend_from_slice(&[0; 4]);
        infos.resize(infos.len().next_multiple_of(8), 0);
    }
    if old {
        put64(&mut list, text + u64::from(END));
    } else {
        put32(&mut list, END);
    }
    list.resize(list_size.next_multiple_of(8), 0);
    list.extend_from_slice(&infos);

    let words = if old { 7 } else { 8 };
    let mut out = match version {
        Go::V116 => 0xffff_fffau32,
        Go::V118 => 0xffff_fff0,
        Go::V120 => 0xffff_fff1,
    }
    .to_le_bytes()
    .to_vec();
    out.extend_from_slice(&[0, 0, 1, 8]);
    put64(&mut out, FUNCTIONS.len() as u64);
    put64(&mut out, FUNCTIONS.len() as u64);
    if !old {
        put64(&mut out, if in_header { text } else { 0 });
    }
    let parts = [names, units, files, pc_values, list];
    let mut at = 8 + words * 8;
    for part in &parts {
        put64(&mut out, at as u64);
        at += part.len().next_multiple_of(8);
    }
    for part in &parts {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

/// A pc-value table with one value for all of a function: the difference to -1, zig-zag, then a length, then the end.
fn put_value(out: &mut Vec<u8>, value: u32) {
    let mut zigzag = (value + 1) << 1;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.extend_from_slice(&[zigzag as u8, 0x40, 0]);
}

fn put32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_le_bytes());
}
