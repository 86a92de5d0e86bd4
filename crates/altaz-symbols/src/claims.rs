//! What the tables of a file claim: symbols, frame descriptions, Go's functions.

use crate::SymbolError;
use crate::bytes::Budget;
use crate::eh_frame::{FrameKind, frames};
use crate::elf::Elf;
use crate::functions::Language;
use crate::gopclntab;
use crate::layout::Claim;
use std::collections::HashMap;

/// Everything the tables say, and whether Go's table was among them.
pub(crate) fn claims(elf: &Elf<'_>, names: &mut Budget) -> Result<(Vec<Claim>, bool), SymbolError> {
    let mut out = Vec::new();
    let mut text_start = elf.section(".text").map(|(s, _)| s.addr);
    for symbol in elf.symbols(names)? {
        if symbol.name == "runtime.text" {
            text_start = Some(symbol.addr);
        }
        // `memcpy@@GLIBC_2.14` in unstripped libraries
        let name = symbol.name.split('@').next().unwrap_or_default();
        if name.is_empty() || name.starts_with(".L") || name.starts_with('$') {
            continue;
        }
        let label = !symbol.is_function && (symbol.bind == 0 || symbol.size == 0);
        let size = if label { 0 } else { symbol.size };
        out.push(Claim {
            start: symbol.addr,
            end: symbol.addr.checked_add(size).unwrap_or(symbol.addr),
            name: name.to_string(),
            rank: match (symbol.is_function, symbol.bind) {
                (false, _) => 0,
                (true, 0) => 1,
                (true, 2) => 2,
                (true, _) => 3,
            },
            part: false,
            file: None,
            line: None,
        });
    }
    if let Some((addr, bytes)) = elf.eh_frame() {
        let frames = frames(addr, bytes, elf.is_x86_64());
        let code = frames.into_iter().filter(|frame| frame.kind != FrameKind::Plt);
        out.extend(code.map(|frame| Claim {
            start: frame.addr,
            end: frame.addr + frame.size,
            name: String::new(),
            rank: 0,
            part: frame.kind == FrameKind::Part,
            file: None,
            line: None,
        }));
    }
    let go = go_functions(elf, text_start);
    let is_go = !go.is_empty();
    for function in go {
        names.take(function.name.len())?;
        out.push(Claim {
            start: function.addr,
            end: function.addr.saturating_add(function.size),
            name: function.name,
            rank: 4,
            part: false,
            file: function.file,
            line: function.line,
        });
    }
    Ok((out, is_go))
}

fn go_functions(elf: &Elf<'_>, text: Option<u64>) -> Vec<gopclntab::GoFunction> {
    let named = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|n| elf.section(n));
    let table = named.map(|(_, bytes)| bytes).or_else(|| {
        // Without sections: the table starts on a 32-byte boundary of a loaded segment.
        let mut loaded = elf.sections.is_empty().then(|| elf.loaded()).into_iter().flatten();
        loaded.find_map(|(_, bytes)| {
            let at = (0..bytes.len()).step_by(32).find(|&at| gopclntab::looks_like(&bytes[at..]));
            at.map(|at| &bytes[at..])
        })
    });
    let functions = table.and_then(|t| gopclntab::functions(t, text).ok());
    functions.unwrap_or_default()
}

/// Judges by names and the compiler's mark.
pub(crate) fn language(elf: &Elf<'_>, claims: &[Claim], go: bool) -> Language {
    if go {
        return Language::Go;
    }
    let comment = elf.section(".comment").map_or(&[][..], |(_, bytes)| bytes);
    let rustc = comment.windows(6).any(|w| w == b"rustc ");
    let mut counts: HashMap<bool, usize> = HashMap::new();
    for claim in claims.iter().filter(|c| c.name.starts_with("_Z") || c.name.starts_with("_R")) {
        let rust = claim.name.starts_with("_R") || is_legacy_rust(&claim.name);
        *counts.entry(rust).or_default() += 1;
    }
    let (rust, cpp) = (counts.get(&true).copied(), counts.get(&false).copied());
    match (rust.unwrap_or(0), cpp.unwrap_or(0)) {
        (0, 0) if rustc => Language::Rust,
        (0, 0) => Language::C,
        (r, c) if r >= c => Language::Rust,
        _ => Language::Cpp,
    }
}

/// `_ZN…17h0123456789abcdefE`
fn is_legacy_rust(name: &str) -> bool {
    let hash = name.strip_suffix('E').and_then(|n| n.get(n.len().checked_sub(19)?..));
    hash.is_some_and(|h| h.starts_with("17h") && h[3..].bytes().all(|b| b.is_ascii_hexdigit()))
}
