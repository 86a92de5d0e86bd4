//! Typed access to a parsed TOML table that collects problems with their positions.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::spec::Problem;

/// The text being read and what was found wrong in it.
pub(crate) struct Reader<'t> {
    text: &'t str,
    problems: Vec<(usize, Problem)>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// Records a problem at a byte range of the text.
    pub(crate) fn at(&mut self, span: Range<usize>, key: &str, message: String) {
        let (line, column) = position(self.text, span.start);
        self.problems.push((span.start, Problem { line, column, key: key.to_owned(), message }));
    }

    pub(crate) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|(at, _)| *at);
        self.problems.into_iter().map(|(_, p)| p).collect()
    }

    /// Wraps a table and reports its unknown keys.
    pub(crate) fn fields<'a>(
        &mut self,
        table: &'a DeTable<'a>,
        path: &str,
        span: Range<usize>,
        known: &[&str],
    ) -> Fields<'a> {
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let of = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
                let mut hint = did_you_mean(name, known);
                if hint.is_empty() {
                    hint = format!("; known are {}", known.join(", "));
                }
                self.at(key.span(), &joined(path, name), format!("unknown key{of}{hint}"));
            }
        }
        Fields { table, path: path.to_owned(), span }
    }
}

/// A table under way.
pub(crate) struct Fields<'a> {
    table: &'a DeTable<'a>,
    path: String,
    span: Range<usize>,
}

impl<'a> Fields<'a> {
    /// Where the table stands.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where a key stands, if it is there.
    pub(crate) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(k, _)| k.span())
    }

    /// Whether a key holds a list.
    pub(crate) fn is_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|v| v.get_ref().as_array().is_some())
    }

    /// Keys in the order of the file.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> =
            self.table.iter().map(|(k, _)| (k.span().start, k.get_ref().to_string())).collect();
        keys.sort();
        keys.into_iter().map(|(_, k)| k).collect()
    }

    fn get(
        &self,
        r: &mut Reader<'_>,
        key: &str,
        required: bool,
    ) -> Option<&'a Spanned<DeValue<'a>>> {
        let found = self.table.get(key);
        if found.is_none() && required {
            r.at(self.span(), &joined(&self.path, key), "is missing".into());
        }
        found
    }

    fn wrong(&self, r: &mut Reader<'_>, key: &str, v: &Spanned<DeValue<'_>>, want: &str) {
        let have = v.get_ref().type_str();
        r.at(v.span(), &joined(&self.path, key), format!("must be {want}, not {}", article(have)));
    }

    /// A string.
    pub(crate) fn str(
        &self,
        r: &mut Reader<'_>,
        key: &str,
        required: bool,
    ) -> Option<Spanned<String>> {
        let v = self.get(r, key, required)?;
        match v.get_ref().as_str() {
            Some(s) => Some(Spanned::new(v.span(), s.to_owned())),
            None => {
                self.wrong(r, key, v, "a string");
                None
            }
        }
    }

    /// A boolean.
    pub(crate) fn boolean(&self, r: &mut Reader<'_>, key: &str) -> Option<Spanned<bool>> {
        let v = self.get(r, key, false)?;
        match v.get_ref().as_bool() {
            Some(b) => Some(Spanned::new(v.span(), b)),
            None => {
                self.wrong(r, key, v, "true or false");
                None
            }
        }
    }

    /// An integer in a range.
    pub(crate) fn integer(
        &self,
        r: &mut Reader<'_>,
        key: &str,
        required: bool,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let v = self.get(r, key, required)?;
        let Some(i) = v.get_ref().as_integer() else {
            self.wrong(r, key, v, "a whole number");
            return None;
        };
        match i64::from_str_radix(i.as_str(), i.radix()) {
            Ok(n) if range.contains(&n) => Some(n),
            _ => {
                let (lo, hi) = (range.start(), range.end());
                let key = joined(&self.path, key);
                r.at(v.span(), &key, format!("must lie between {lo} and {hi}"));
                None
            }
        }
    }

    /// A number, whole or not; always finite.
    pub(crate) fn number(
        &self,
        r: &mut Reader<'_>,
        key: &str,
        required: bool,
    ) -> Option<Spanned<f64>> {
        let v = self.get(r, key, required)?;
        let n = match v.get_ref() {
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            DeValue::Integer(i) => {
                i64::from_str_radix(i.as_str(), i.radix()).ok().map(|n| n as f64)
            }
            _ => None,
        };
        match n {
            Some(n) if n.is_finite() => Some(Spanned::new(v.span(), n)),
            Some(_) => {
                r.at(v.span(), &joined(&self.path, key), "must be a finite number".into());
                None
            }
            None => {
                self.wrong(r, key, v, "a number");
                None
            }
        }
    }

    /// A list of strings; absent is empty.
    pub(crate) fn strings(&self, r: &mut Reader<'_>, key: &str) -> Vec<Spanned<String>> {
        let Some(v) = self.get(r, key, false) else { return Vec::new() };
        let Some(items) = v.get_ref().as_array() else {
            self.wrong(r, key, v, "a list of strings");
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(s) => out.push(Spanned::new(item.span(), s.to_owned())),
                None => self.wrong(r, key, item, "a list of strings"),
            }
        }
        out
    }

    /// A table with known keys.
    pub(crate) fn table(
        &self,
        r: &mut Reader<'_>,
        key: &str,
        required: bool,
        known: &[&str],
    ) -> Option<Fields<'a>> {
        let v = self.get(r, key, required)?;
        let Some(t) = v.get_ref().as_table() else {
            self.wrong(r, key, v, "a table");
            return None;
        };
        let span = self.span_of(key).unwrap_or(v.span());
        Some(r.fields(t, &joined(&self.path, key), span, known))
    }

    /// A table with any keys.
    pub(crate) fn open_table(&self, r: &mut Reader<'_>, key: &str) -> Option<Fields<'a>> {
        let v = self.get(r, key, false)?;
        let Some(table) = v.get_ref().as_table() else {
            self.wrong(r, key, v, "a table");
            return None;
        };
        Some(Fields {
            table,
            path: joined(&self.path, key),
            span: self.span_of(key).unwrap_or(v.span()),
        })
    }

    /// A list of tables with known keys; absent is empty.
    pub(crate) fn tables(&self, r: &mut Reader<'_>, key: &str, known: &[&str]) -> Vec<Fields<'a>> {
        let Some(v) = self.get(r, key, false) else { return Vec::new() };
        let want = format!("a list of tables {{ {} }}", known.join(", "));
        let Some(items) = v.get_ref().as_array() else {
            self.wrong(r, key, v, &want);
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(t) => out.push(r.fields(t, &joined(&self.path, key), item.span(), known)),
                None => self.wrong(r, key, item, &want),
            }
        }
        out
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

/// Line and column (in characters), both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// `"; did you mean …?"` when one of the known words is close, else empty.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    if word.len() > 64 {
        return String::new();
    }
    let word = word.to_lowercase().replace('-', "_");
    let best = known
        .iter()
        .map(|k| (edits(&word, &k.to_lowercase().replace('-', "_")), *k))
        .min_by_key(|(d, _)| *d);
    match best {
        Some((d, k)) if d <= 1 + k.len() / 4 => format!("; did you mean `{k}`?"),
        _ => String::new(),
    }
}

/// Edit distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
