//! Results as one page: a file that needs nothing else, opens from a mail, follows the reader's
//! choice of light or dark, prints, and shows its main figures without scripts.
//!
//! The drawings are made here, from the values and nothing else; the script only opens what is
//! drawn already (treemap) or lists what is too long to print (functions).

mod chart;
mod data;
mod deployment;
mod growth;
mod page;
mod paths;
mod risk;
mod squarify;
mod stack;
mod tables;
mod text;
mod treemap;

use altaz_profile::results::diff::DiffResult;
use altaz_profile::results::functions::FunctionTable;
use altaz_profile::results::{CompareResult, DeploymentResult, ProfileReport};
use maud::{Markup, html};

use self::deployment::anchor;
use self::page::page;
use self::stack::Stacks;
use self::text::{method, section, spans, t};
use crate::number::{count, kb, kb_opt, percent};
use crate::style::Span;
use crate::{compare, diff, parts, profile};

/// `report.html` of a comparison. With the functions of its deployments the page has growth curves,
/// a treemap that opens and a table of functions; they are matched by the deployment's name.
pub fn compare_html(result: &CompareResult, functions: &[FunctionTable]) -> String {
    let available: Vec<&DeploymentResult> =
        result.deployments.iter().filter(|d| d.available).collect();
    let tables: Vec<Option<&FunctionTable>> =
        available.iter().map(|d| functions.iter().find(|f| f.deployment == d.name)).collect();
    let pairs: Vec<_> = available.iter().copied().zip(tables.iter().copied()).collect();
    let title = format!("{} {}", result.service, parts::in_deployments(result.deployments.len()));
    let notes: Vec<Vec<Span>> = compare::note_lines(result).into_iter().map(|l| vec![l]).collect();
    let body = html! {
        header {
            @if let Some(basis) = &result.basis {
                p class="lead" {
                    (t(&basis.load)) span class="dim" {
                        " · " (t(&basis.instrument)) " instrument · " (basis.phase) " phase"
                    }
                }
            }
            p class="dim" { "host " (t(parts::host(&result.host))) }
        }
        (stacks_figure(result, &available))
        @if !available.is_empty() { (comparison(result, &available)) }
        (paths::figure(&available))
        @if let Some(risk) = &result.risk { (risk::figure(risk)) }
        (growth_figures(&pairs))
        @for (i, (d, table)) in pairs.iter().enumerate() {
            section class="deployment" id=(anchor(i)) {
                h2 { (t(&d.name)) }
                // The name is the heading already.
                p { (spans(&compare::heading(d)[1..])) }
                (deployment::figures(d))
                @if !d.kinds.is_empty() {
                    p { "Kinds of requests, each with what it traversed:" }
                    ul { @for kind in &d.kinds { li { (t(parts::kind(kind))) } } }
                }
                @if let Some(repeats) = &d.repeats {
                    p { "Repeats: " (t(parts::repeats(repeats))) }
                }
                (deployment::explorer(d, *table, stack::shows_covered(&available), i))
            }
        }
        (section("Blind spots", &compare::blind_lines(result)))
        (section("Notes", &notes))
    };
    page(&title, &body, data::data(&pairs).as_deref())
}

/// The report of one profile as a page, with its functions where they are known.
pub fn profile_html(report: &ProfileReport, functions: Option<&FunctionTable>) -> String {
    let d = &report.deployment;
    let header = profile::header(report);
    let notes: Vec<Vec<Span>> = profile::note_lines(d).into_iter().map(|l| vec![l]).collect();
    let covered = stack::shows_covered(&[d]);
    let body = html! {
        header { @for line in &header[1..] { p class="field" { (spans(line)) } } }
        figure id="stacks" {
            figcaption { h2 { "The code that a request passes" } }
            (stack::legend())
            div class="stacks" { (stack_card(d, &Stacks::new(&[d]), 0)) }
            (stack_method(covered))
        }
        section {
            h2 { "Figures" }
            (deployment::figures(d))
            (tables::table(&profile::checks_table(d), "Checks of the estimates"))
            p class="dim" { (profile::CHECKS) }
        }
        (paths::figure(&[d]))
        (growth_figures(&[(d, functions)]))
        section {
            h2 { "Components and functions" }
            (deployment::explorer(d, functions, covered, 0))
            @for table in profile::context_table(d).into_iter().chain(profile::component_tables(d)) {
                (tables::table(&table, "Components"))
            }
        }
        (section("Posture", &profile::posture_lines(d)))
        (section("Blind spots", &profile::blind_lines(d)))
        (section("Notes", &notes))
    };
    let title = format!("{} in {}", report.service, d.name);
    page(&title, &body, data::data(&[(d, functions)]).as_deref())
}

/// A difference as a page, with so many functions and components of each list.
pub fn diff_html(result: &DiffResult, top: usize) -> String {
    let body = html! {
        header { @for line in &diff::header(result)[1..] { p class="field" { (spans(line)) } } }
        (section("Limits", &diff::limit_lines(result)))
        (section("Conclusion", &diff::conclusion_lines(result)))
        (tables::table(&diff::layer_table(result), "Layers"))
        @for table in diff::tables(result, top) { (tables::table(&table, "Functions and components")) }
        (section("Boundaries", &diff::boundary_lines(result, top)))
        (section("Posture", &diff::posture_lines(result)))
        (section("Notes", &diff::note_lines()))
    };
    page(&diff::title(result), &body, None)
}

/// Figure 1: the stacks side by side, and the deployments without one.
fn stacks_figure(result: &CompareResult, available: &[&DeploymentResult]) -> Markup {
    let stacks = Stacks::new(available);
    html! {
        figure id="stacks" {
            @if !available.is_empty() {
                figcaption { h2 { "The code that a request passes" } }
                (stack::legend())
            }
            div class="stacks" {
                @for (i, d) in available.iter().enumerate() { (stack_card(d, &stacks, i)) }
                @for d in result.deployments.iter().filter(|d| !d.available) {
                    div class="card missing" {
                        h3 { (t(&d.name)) }
                        p class="warn" { (t(compare::unavailable(d))) }
                    }
                }
            }
            @if !available.is_empty() { (stack_method(stack::shows_covered(available))) }
        }
    }
}

fn stack_card(d: &DeploymentResult, stacks: &Stacks<'_>, index: usize) -> Markup {
    let covered = d.vap.and_then(|v| v.covered_bytes);
    let size = d.vap.map(|v| v.bytes);
    html! {
        div class="card" {
            h3 {
                a href={ "#" (anchor(index)) } { (t(&d.name)) }
                @if d.model_only { " " span class="badge" { "model, not measured" } }
            }
            @if let Some(vap) = d.vap {
                p class="sums" {
                    b { @if covered.is_some() { (kb_opt(covered)) } @else { (kb(size.unwrap_or(0))) } " kB" }
                    " · " (count(vap.functions)) " functions · "
                    b { (percent(vap.tenant_share)) } " tenant"
                }
            }
            (stacks.draw(index))
        }
    }
}

fn stack_method(covered: bool) -> Markup {
    let height = if covered {
        "Height: bytes of machine code that this load executed while serving"
    } else {
        "Height: whole size of the functions that this load traversed while serving"
    };
    let shows = format!(
        "{height}, on one scale for all stacks; what would be invisible is drawn as a line. Layers in \
         the order in which a request passes them. HAP marks what several tenants share. moved*: the \
         owner is not the one on whose side of the boundary the code runs."
    );
    method(&[
        ("Shows", &shows),
        (
            "Blind to",
            "Hardware and firmware; code that this load did not call; what the blind spots below list.",
        ),
        (
            "Assumes",
            "The second tenant is a copy of the measured one. Size is not risk: that it stands for it \
             is an assumption.",
        ),
    ])
}

/// Figure 2: VAP by owner and HAP.
fn comparison(result: &CompareResult, available: &[&DeploymentResult]) -> Markup {
    let shows = format!(
        "Functions traversed while serving. Upper bar: VAP, the tenant's part first; lower bar: HAP, \
         the functions of shared layers. {}",
        chart::ranges(available)
    );
    let blind = format!(
        "{} Other loads, and the reachable code that this one left alone.",
        chart::missing(available)
    );
    html! {
        figure id="profiles" {
            figcaption { h2 { "Vertical and horizontal attack profile" } }
            ul class="legend" {
                li { svg class="key" width="26" height="14" aria-hidden="true" {
                    rect class="tenant" x="0.5" y="0.5" width="25" height="13" {} } "VAP, the tenant's" }
                li { svg class="key" width="26" height="14" aria-hidden="true" {
                    rect class="provider" x="0.5" y="0.5" width="25" height="13" {} } "VAP, the provider's" }
                li { svg class="key" width="26" height="14" aria-hidden="true" {
                    rect class="hap" x="0.5" y="2.5" width="25" height="9" {} } "HAP, exercised" }
            }
            (chart::chart(available))
            (method(&[
                ("Shows", &shows),
                ("Blind to", &blind),
                ("Assumes", "A function counts as one, however large it is; the table has bytes too."),
            ]))
            (tables::table(&compare::summary_table(result, 0), "VAP and HAP of all deployments"))
        }
    }
}

/// Figure 3: growth curves of the deployments whose functions are known.
fn growth_figures(pairs: &[(&DeploymentResult, Option<&FunctionTable>)]) -> Markup {
    let drawn: Vec<Markup> = pairs
        .iter()
        .enumerate()
        .filter_map(|(i, (d, table))| deployment::growth_figure(d, *table, i))
        .collect();
    html! {
        @if !drawn.is_empty() {
            figure id="growth" {
                figcaption { h2 { "Is the recording complete?" } }
                div class="stacks" { @for card in &drawn { (card) } }
                (deployment::growth_method())
            }
        }
    }
}
