//! Text of others inside markup: cleaned, escaped, and never more than text.
//!
//! Names come out of binaries and files that somebody else made. Everything that is not a constant
//! of this crate goes through [`t`] on its way into a page.

use maud::{Escaper, Markup, PreEscaped, Render, html};

use crate::style::{Span, Style, clean};

/// Text that a browser shows as it is: control characters and what reorders text made visible,
/// markup escaped.
pub struct Text<S>(S);

/// Marks a text as somebody else's.
pub fn t<S: AsRef<str>>(text: S) -> Text<S> {
    Text(text)
}

impl<S: AsRef<str>> Render for Text<S> {
    fn render_to(&self, buffer: &mut String) {
        use std::fmt::Write as _;
        // A String takes everything.
        let _ = Escaper::new(buffer).write_str(&clean(self.0.as_ref()));
    }
}

/// A coordinate or length with one decimal; what is no number is nothing.
pub fn f1(x: f64) -> String {
    if x.is_finite() { format!("{x:.1}") } else { "0".into() }
}

/// A share of 1 as a length in percent.
pub fn pc(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    format!("{:.3}%", share * 100.0)
}

/// A line of styled pieces.
pub fn spans(line: &[Span]) -> Markup {
    html! {
        @for (i, span) in line.iter().enumerate() {
            @let text = if i == 0 { span.text.trim_start() } else { &span.text };
            @match class(span.style) {
                Some(class) => span class=(class) { (t(text)) },
                None => (t(text)),
            }
        }
    }
}

/// A paragraph for each line.
pub fn lines(content: &[Vec<Span>]) -> Markup {
    html! { @for line in content { p { (spans(line)) } } }
}

/// A heading with lines below it, or nothing without lines.
pub fn section(title: &str, content: &[Vec<Span>]) -> Markup {
    html! {
        @if !content.is_empty() {
            section { h2 { (title) } (lines(content)) }
        }
    }
}

const fn class(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Title | Style::Strong => Some("strong"),
        Style::Dim => Some("dim"),
        Style::Tenant => Some("tenant"),
        Style::Provider => Some("provider"),
        Style::Warn => Some("warn"),
    }
}

/// What a reader has to know of a figure, next to it.
pub fn method(parts: &[(&str, &str)]) -> Markup {
    html! {
        dl class="method" {
            @for (name, text) in parts {
                div { dt { (name) } dd { (t(text)) } }
            }
        }
    }
}

/// A text that is safe inside `<script type="application/json">`: JSON without any character that
/// could end the element or begin another.
pub fn json_block(json: &str) -> Markup {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            c => out.push(c),
        }
    }
    PreEscaped(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_text() {
        let evil = "</script><b onload=\"x\">\u{202e}\u{1b}[31m&";
        let shown = html! { (t(evil)) }.into_string();
        assert_eq!(shown, "&lt;/script&gt;&lt;b onload=&quot;x&quot;&gt;\u{fffd}\u{fffd}[31m&amp;");
        let json = json_block(&serde_json::to_string(evil).unwrap()).into_string();
        assert!(!json.contains(['<', '>', '&']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), evil);
    }

    #[test]
    fn what_is_no_number_is_no_length() {
        assert_eq!(
            (f1(f64::NAN), pc(f64::NAN), pc(7.0)),
            ("0".into(), "0.000%".into(), "100.000%".into())
        );
    }
}
