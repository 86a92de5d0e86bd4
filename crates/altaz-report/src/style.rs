//! Text with a meaning attached to it, and how that meaning looks on a terminal.
//!
//! Everything that comes out of a profile goes through [`clean`] before it reaches a terminal: a
//! profile is somebody else's file, and a name in it may hold escape sequences.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A space at which no line is broken: between a number and its unit.
pub const NO_BREAK: &str = "\u{a0}";

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Ordinary text.
    #[default]
    Plain,
    /// A heading.
    Title,
    /// Something that counts.
    Strong,
    /// Something that may be overlooked.
    Dim,
    /// The tenant's.
    Tenant,
    /// The provider's.
    Provider,
    /// Something that is not as it should be.
    Warn,
}

impl Style {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Title => Some("1;36"),
            Self::Strong => Some("1"),
            Self::Dim => Some("2"),
            Self::Tenant => Some("32"),
            Self::Provider => Some("31"),
            Self::Warn => Some("33"),
        }
    }
}

/// A piece of text of one style.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Span {
    /// The text, clean.
    pub text: String,
    /// Its style.
    pub style: Style,
}

impl Span {
    /// A piece of text; control characters are made visible.
    pub fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: clean(text.as_ref()), style }
    }

    /// Appends it to a line. No-break spaces have done their work by now.
    pub fn paint(&self, out: &mut String, color: bool) {
        let text = self.text.replace(NO_BREAK, " ");
        match self.style.code().filter(|_| color && !self.text.is_empty()) {
            Some(code) => {
                out.push_str("\x1b[");
                out.push_str(code);
                out.push('m');
                out.push_str(&text);
                out.push_str("\x1b[0m");
            }
            None => out.push_str(&text),
        }
    }
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Replaces what could move the cursor, change colours or reorder text.
pub fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// Breaks a text into lines of at most `limit` columns, at spaces where there are any, after `/`,
/// `-` or `,` else, and anywhere if need be.
pub fn wrap(text: &str, limit: usize) -> Vec<String> {
    let limit = limit.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let space = usize::from(!line.is_empty());
        if width(&line) + space + width(word) <= limit {
            if space == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        let mut rest = word;
        while width(rest) > limit {
            let (head, tail) = rest.split_at(break_at(rest, limit));
            lines.push(head.to_owned());
            rest = tail;
        }
        line.push_str(rest);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// Byte position, greater than zero, at which a word that is too long is broken.
fn break_at(word: &str, limit: usize) -> usize {
    let (mut fits, mut good, mut columns) = (0, 0, 0);
    for (at, c) in word.char_indices() {
        columns += c.width().unwrap_or(0);
        if columns > limit && fits > 0 {
            break;
        }
        fits = at + c.len_utf8();
        if matches!(c, '/' | '-' | ',') {
            good = fits;
        }
    }
    if good > 0 { good } else { fits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_in_names_do_not_reach_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\n\u{202e}"), "a\u{fffd}[31mb\u{fffd}\u{fffd}");
    }

    #[test]
    fn long_words_break_after_slashes_and_hyphens() {
        assert_eq!(wrap("language-runtime", 10), ["language-", "runtime"]);
        assert_eq!(wrap("/usr/lib/x86_64-linux-gnu", 12), ["/usr/lib/", "x86_64-", "linux-gnu"]);
        assert_eq!(wrap("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a b  c", 3), ["a b", "c"]);
    }
}
