//! The frame of every page: one file that needs nothing else. Its policy lets nothing in from
//! outside and lets only this crate's own style and script run, each by its hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::text::{json_block, t};

const CSS: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// A page with this body; with data for the script where there is any, else without script.
pub fn page(title: &str, body: &Markup, data: Option<&str>) -> String {
    let script = data.map_or_else(|| "'none'".into(), |_| hash(SCRIPT));
    let policy = format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src {}; script-src {script}",
        hash(CSS)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (t(title)) " · altaz" }
                style { (PreEscaped(CSS)) }
            }
            body {
                (patterns())
                main { h1 { (t(title)) } (body) }
                @if let Some(data) = data {
                    script type="application/json" id="altaz-data" { (json_block(data)) }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        }
    };
    let mut out = page.into_string();
    out.push('\n');
    out
}

/// Source expression of an element with this content.
fn hash(content: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content.as_bytes())))
}

/// What fills the areas besides colour.
fn patterns() -> Markup {
    html! {
        svg class="patterns" width="0" height="0" aria-hidden="true" {
            defs {
                pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect width="7" height="7" class="provider-base" {}
                    rect width="1.6" height="7" class="provider-ink" {}
                }
                pattern id="dots" width="8" height="8" patternUnits="userSpaceOnUse" {
                    rect width="8" height="8" class="second-base" {}
                    circle cx="2" cy="2" r="1.1" class="second-ink" {}
                    circle cx="6" cy="6" r="1.1" class="second-ink" {}
                }
            }
        }
    }
}
