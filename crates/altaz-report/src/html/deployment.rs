//! What a page shows of one deployment besides its stack: tables, treemap, functions.

use altaz_profile::results::DeploymentResult;
use altaz_profile::results::functions::FunctionTable;
use maud::{Markup, html};

use super::text::{lines, method, t};
use super::{growth, tables, treemap};
use crate::number::count;
use crate::profile;

/// Name of a deployment as the place of a link. Names are somebody else's, their order is not.
pub fn anchor(index: usize) -> String {
    format!("deployment-{index}")
}

/// The tables of layers and the widths of the boundaries.
pub fn figures(d: &DeploymentResult) -> Markup {
    let boundaries = profile::boundary_lines(d);
    html! {
        (tables::table(&profile::layer_table(d, usize::MAX), &format!("Layers of {}", d.name)))
        @if !boundaries.is_empty() {
            details class="more" {
                summary { "Boundaries: entry points called, of those permitted" }
                (lines(&boundaries))
            }
        }
    }
}

/// The growth curves as a figure with a heading of this level.
pub fn growth_figure(
    d: &DeploymentResult,
    table: Option<&FunctionTable>,
    index: usize,
) -> Option<Markup> {
    let drawing = growth::growth(d, table?, &format!("growth-{index}"))?;
    Some(html! {
        div class="card" { h3 { (t(&d.name)) } (drawing) }
    })
}

/// What the growth curves rest on.
pub fn growth_method() -> Markup {
    method(&[
        (
            "Shows",
            "Distinct functions seen up to each window while serving, of those seen in the end and \
             those that the completeness estimate adds. Windows on a logarithmic scale. A curve that \
             still rises at its end is a recording that was too short.",
        ),
        ("Blind to", "Layers of fewer than 20 functions, and code that this load never calls."),
        (
            "Assumes",
            "The load is the same in every window. The estimate is a lower bound of what is missing.",
        ),
    ])
}

/// Treemap and function table; the parts that need a script are hidden until it runs.
pub fn explorer(
    d: &DeploymentResult,
    table: Option<&FunctionTable>,
    covered: bool,
    index: usize,
) -> Markup {
    let Some(map) = treemap::treemap(d, table, covered, &format!("treemap-{index}")) else {
        return html! {};
    };
    let kind = if covered { "executed" } else { "traversed" };
    let functions: usize = table.map_or(0, |t| t.layers.iter().map(|l| l.functions.len()).sum());
    html! {
        figure class="explorer" data-deployment=(index) {
            figcaption { h3 { "Where the code is" } }
            @if table.is_some() { (map_controls(index, table)) }
            div class="map" { (map) }
            @if table.is_some() {
                p class="status" data-status="" hidden { "\u{a0}" }
            }
            (method(&[
                ("Shows", &format!(
                    "Layers and in them their components, by bytes of {kind} code. Red and hatched is \
                     the provider's, green the tenant's."
                )),
                ("Blind to", "Code that was not named is in the layer table, not here; what was not \
                    traversed is nowhere."),
                ("Assumes", "Where a kernel gives no source files, its functions are grouped by the \
                    first word of their names."),
            ]))
        }
        @if table.is_some() { (function_table(d, functions, index)) }
    }
}

/// Path and colours of the treemap. What there are no data for cannot be chosen, and says why.
fn map_controls(index: usize, table: Option<&FunctionTable>) -> Markup {
    let all = || table.into_iter().flat_map(|t| &t.layers).flat_map(|l| &l.functions);
    let no_cover = "this instrument does not know executed bytes";
    let no_age = "neither binaries nor profiles date their code";
    let no_cves = "no vulnerability feed was joined";
    let colours = [
        ("owner", "owner", None),
        ("covered", "share executed", (!all().any(|f| f.covered.is_some())).then_some(no_cover)),
        ("age", "age", (!all().any(|f| f.age_years.is_some())).then_some(no_age)),
        ("cves", "known CVEs", (!all().any(|f| f.vulnerabilities.is_some())).then_some(no_cves)),
    ];
    html! {
        div class="controls" data-script="" hidden {
            nav class="path" aria-label="Place in the treemap" {}
            fieldset {
                legend { "Colour" }
                @for (value, label, missing) in colours {
                    label class=[missing.map(|_| "missing")] {
                        input type="radio" name={ "colour-" (index) } value=(value)
                            checked[value == "owner"] disabled[missing.is_some()];
                        " " (label)
                        @if let Some(missing) = missing { small { " (" (missing) ")" } }
                    }
                }
            }
            p class="scale" hidden {}
        }
    }
}

fn function_table(d: &DeploymentResult, functions: usize, index: usize) -> Markup {
    let id = format!("search-{index}");
    let heads = [
        ("symbol", "function", false),
        ("component", "component", false),
        ("layer", "layer", false),
        ("size", "bytes", true),
        ("covered", "executed", true),
        ("first", "first window", true),
        ("seen", "windows", true),
    ];
    html! {
        section class="functions" data-deployment=(index) {
            h3 { "Functions" }
            noscript {
                p class="dim" {
                    "This page holds " (count(functions as u64)) " functions for its search, which \
                     needs scripts. They are also rows of " (t(&d.name)) ".altaz, a Parquet file."
                }
            }
            div data-script="" hidden {
                div class="search" {
                    label for=(id) { "Search" }
                    input id=(id) type="search" autocomplete="off" spellcheck="false"
                        placeholder="name, component, layer or binary";
                    p class="status" role="status" {}
                }
                div class="scroll" role="region" tabindex="0"
                    aria-label=(t(format!("Functions of {}", d.name))) {
                    table {
                        thead {
                            tr {
                                @for (key, text, number) in heads {
                                    th scope="col" class=[number.then_some("n")] aria-sort="none" {
                                        button type="button" data-sort=(key) { (text) }
                                    }
                                }
                            }
                        }
                        tbody {}
                    }
                }
                div class="pager" {
                    button type="button" data-page="-1" { "Previous" }
                    button type="button" data-page="1" { "Next" }
                }
            }
        }
    }
}
