//! From what the tables of a file claim to functions that cover its code exactly once.
//!
//! Symbols, frame descriptions and Go's table overlap, nest and contradict each other. Here they become a partition:
//! each executable byte belongs to exactly one function, the one that starts last before it. Padding between
//! functions belongs to the function before it; code that no table knows becomes a function of its own, named by its
//! section, so that nothing executed is ever without a unit.

use std::sync::Arc;

/// A claim of one table.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub start: u64,
    /// `start` when the table knows no size: then it only names code that nothing else claims.
    pub end: u64,
    /// Empty for a frame description.
    pub name: String,
    /// Higher wins when several names start together.
    pub rank: u8,
    pub part: bool,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
}

/// A range of executable bytes with a name of its own (a section, or a segment without sections).
#[derive(Debug, Clone)]
pub(crate) struct Region<'a> {
    pub start: u64,
    /// Where `start` is in the file.
    pub offset: u64,
    pub bytes: &'a [u8],
    pub name: String,
    /// One function for all of it (`.plt`, `.init`): whatever else is claimed inside is dropped.
    pub whole: bool,
}

impl Region<'_> {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn slice(&self, start: u64, end: u64) -> &[u8] {
        let at = |a: u64| usize::try_from(a.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.get(at(start)..at(end)).unwrap_or(&[])
    }
}

/// What a piece of code is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Index into the merged claims; `true`: a remainder behind a function nested in it.
    Claim(usize, bool),
    /// The whole region.
    Region,
    /// Code that no table knows.
    Gap,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub start: u64,
    pub end: u64,
    pub origin: Origin,
}

/// Merges claims that start together: the best name, the greatest end. Sorted by start.
pub(crate) fn merge(mut claims: Vec<Claim>) -> Vec<Claim> {
    claims.sort_by(|a, b| a.start.cmp(&b.start).then_with(|| name_order(a, b)));
    let mut out: Vec<Claim> = Vec::with_capacity(claims.len());
    for claim in claims {
        match out.last_mut().filter(|last| last.start == claim.start) {
            Some(last) => {
                last.end = last.end.max(claim.end);
                if last.name.is_empty() {
                    last.name = claim.name;
                }
                last.file = last.file.take().or(claim.file);
                last.line = last.line.or(claim.line);
                last.part |= claim.part;
            }
            None => out.push(claim),
        }
    }
    out
}

/// Best name first: named, rank (global before weak before local), no leading underscore, longest code, shortest
/// name, alphabet.
fn name_order(a: &Claim, b: &Claim) -> std::cmp::Ordering {
    let key = |c: &Claim| {
        let size = c.end - c.start;
        let rank = std::cmp::Reverse(c.rank);
        (c.name.is_empty(), rank, c.name.starts_with('_'), std::cmp::Reverse(size), c.name.len())
    };
    key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
}

/// Lays merged claims out over one region. `claims` are those with `start` inside it, from index `first` of the list.
pub(crate) fn lay_out(
    region: &Region<'_>,
    first: usize,
    claims: &[Claim],
    x86: bool,
) -> Vec<Piece> {
    let whole = Piece { start: region.start, end: region.end(), origin: Origin::Region };
    if region.whole || region.bytes.is_empty() {
        return vec![whole];
    }
    let pieces = sweep(region, first, claims, x86);
    let labels: Vec<(u64, usize)> = claims
        .iter()
        .enumerate()
        .filter(|(_, c)| c.end == c.start)
        .map(|(i, c)| (c.start, first + i))
        .collect();
    if pieces.is_empty() && labels.is_empty() {
        return vec![whole];
    }
    let mut out = Vec::with_capacity(pieces.len() + 8);
    let mut at = region.start;
    for piece in pieces {
        fill(region, at, piece.start, &labels, x86, &mut out);
        at = piece.end;
        out.push(piece);
    }
    fill(region, at, region.end(), &labels, x86, &mut out);
    out
}

/// Non-overlapping pieces of the claims that have a size; inner ones win over outer ones.
fn sweep(region: &Region<'_>, first: usize, claims: &[Claim], x86: bool) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(claims.len());
    let mut open: Vec<(usize, u64, u64)> = Vec::new(); // claim, its start, its end
    let mut at = region.start;
    let mut emit = |(index, start, _): (usize, u64, u64), from: u64, to: u64| {
        let remainder = from != start;
        if to <= from || (remainder && padding(region.slice(from, to), x86) as u64 == to - from) {
            return;
        }
        out.push(Piece { start: from, end: to, origin: Origin::Claim(index, remainder) });
    };
    for (i, claim) in claims.iter().enumerate().filter(|(_, c)| c.end > c.start) {
        while let Some(&top) = open.last() {
            if top.2 > claim.start {
                emit(top, at, claim.start);
                break;
            }
            emit(top, at, top.2);
            at = at.max(top.2);
            open.pop();
        }
        at = claim.start;
        open.push((first + i, claim.start, claim.end.min(region.end())));
    }
    while let Some(top) = open.pop() {
        emit(top, at, top.2);
        at = at.max(top.2);
    }
    out
}

/// Code between pieces that is not padding: named by the labels in it, else a gap.
fn fill(
    region: &Region<'_>,
    from: u64,
    to: u64,
    labels: &[(u64, usize)],
    x86: bool,
    out: &mut Vec<Piece>,
) {
    if from >= to {
        return;
    }
    let inside = labels.partition_point(|l| l.0 < from)..labels.partition_point(|l| l.0 < to);
    let inside = &labels[inside];
    let stops = inside.iter().map(|l| l.0).chain([to]);
    let mut start = from;
    for (i, stop) in stops.enumerate() {
        let bytes = region.slice(start, stop);
        let lead = padding(bytes, x86);
        let named = i.checked_sub(1).map(|i| inside[i].1);
        if lead < bytes.len() || (named.is_some() && stop > start) {
            let piece = match named {
                Some(claim) => Piece { start, end: stop, origin: Origin::Claim(claim, false) },
                None => Piece { start: start + lead as u64, end: stop, origin: Origin::Gap },
            };
            out.push(piece);
        }
        start = stop;
    }
}

/// How many leading bytes are padding: no-operation instructions, breakpoints, zeros.
pub(crate) fn padding(bytes: &[u8], x86: bool) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let step = if x86 { nop_x86(rest) } else { nop_arm(rest) };
        if step == 0 {
            break;
        }
        at += step;
    }
    at.min(bytes.len())
}

fn nop_arm(rest: &[u8]) -> usize {
    if rest.starts_with(&[0x1f, 0x20, 0x03, 0xd5]) { 4 } else { usize::from(rest[0] == 0) }
}

fn nop_x86(rest: &[u8]) -> usize {
    let prefixes = rest.iter().take(12).take_while(|b| matches!(b, 0x66 | 0x2e)).count();
    let after = &rest[prefixes..];
    match after {
        [0x90, ..] => prefixes + 1,
        [0xcc | 0x00, ..] if prefixes == 0 => 1,
        [0x0f, 0x1f, modrm, tail @ ..] => {
            let (mode, rm) = (modrm >> 6, modrm & 7);
            let sib = usize::from(mode != 3 && rm == 4);
            let displacement = match mode {
                0 if rm == 5 || (rm == 4 && tail.first().is_some_and(|s| s & 7 == 5)) => 4,
                1 => 1,
                2 => 4,
                _ => 0,
            };
            let len = prefixes + 3 + sib + displacement;
            if len <= rest.len() { len } else { 0 }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(start: u64, end: u64, name: &str) -> Claim {
        Claim { start, end, name: name.into(), rank: 2, part: false, file: None, line: None }
    }

    fn layout(bytes: &[u8], claims: Vec<Claim>) -> Vec<(u64, u64, Origin)> {
        let region = Region { start: 0, offset: 0, bytes, name: ".text".into(), whole: false };
        let claims = merge(claims);
        lay_out(&region, 0, &claims, true).iter().map(|p| (p.start, p.end, p.origin)).collect()
    }

    #[test]
    fn a_function_nested_in_another_splits_it_and_the_rest_stays_a_part_of_the_outer() {
        let pieces = layout(&[0xaa; 100], vec![claim(0, 100, "outer"), claim(20, 30, "inner")]);
        assert_eq!(
            pieces,
            [
                (0, 20, Origin::Claim(0, false)),
                (20, 30, Origin::Claim(1, false)),
                (30, 100, Origin::Claim(0, true)),
            ]
        );
    }

    #[test]
    fn overlapping_functions_are_cut_where_the_next_begins() {
        let pieces =
            layout(&[0xaa; 20], vec![claim(0, 10, "a"), claim(5, 15, "b"), claim(12, 20, "c")]);
        assert_eq!(
            pieces,
            [
                (0, 5, Origin::Claim(0, false)),
                (5, 12, Origin::Claim(1, false)),
                (12, 20, Origin::Claim(2, false)),
            ]
        );
    }

    #[test]
    fn padding_is_no_gap_and_unknown_code_is_one() {
        let mut code = vec![0xaa; 64];
        code[10..16].copy_from_slice(&[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00]);
        code[40..44].copy_from_slice(&[0xcc, 0x90, 0xcc, 0xcc]);
        let pieces = layout(&code, vec![claim(0, 10, "a"), claim(16, 40, "b")]);
        assert_eq!(
            pieces,
            [
                (0, 10, Origin::Claim(0, false)),
                (16, 40, Origin::Claim(1, false)),
                (44, 64, Origin::Gap),
            ]
        );
    }

    #[test]
    fn labels_without_size_name_only_what_nothing_else_claims() {
        let pieces =
            layout(&[0xaa; 40], vec![claim(0, 10, "a"), claim(5, 5, "in_a"), claim(20, 20, "asm")]);
        assert_eq!(
            pieces,
            [
                (0, 10, Origin::Claim(0, false)),
                (10, 20, Origin::Gap),
                (20, 40, Origin::Claim(2, false)),
            ]
        );
    }

    #[test]
    fn aliases_take_the_global_name_without_underscore() {
        let mut local = claim(0, 10, "local_name");
        local.rank = 0;
        let merged =
            merge(vec![claim(0, 10, "__write"), local, claim(0, 10, "write"), claim(0, 12, "")]);
        assert_eq!((merged.len(), merged[0].name.as_str(), merged[0].end), (1, "write", 12));
    }
}
