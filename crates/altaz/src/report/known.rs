//! Known vulnerabilities for a page's treemap and function table, from what `altaz triage -o json`
//! wrote.

use std::path::Path;

use altaz_profile::Layer;
use altaz_profile::results::functions::FunctionTable;
use anyhow::Context as _;
use serde::Deserialize;

/// What a page needs of a triage.
#[derive(Deserialize)]
struct Triage {
    schema: String,
    profiles: Vec<Triaged>,
}

#[derive(Deserialize)]
struct Triaged {
    deployment: String,
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    id: String,
    /// `function (file) in layer`, for each function that was traversed.
    #[serde(default)]
    traversed: Vec<String>,
}

/// Marks the functions that a triage found traversed; those of deployments that it is not about
/// stay unmarked.
pub fn join(path: &Path, tables: &mut [FunctionTable]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the triage {}", path.display()))?;
    let triage: Triage = serde_json::from_str(&text).with_context(|| {
        format!("{} is no triage: write one with `altaz triage -o json=FILE`", path.display())
    })?;
    anyhow::ensure!(
        triage.schema.starts_with("altaz.triage/1"),
        "{} has the schema {:?}, and this altaz reads altaz.triage/1",
        path.display(),
        triage.schema
    );
    for table in tables {
        let deployment = table.deployment.clone();
        for triaged in triage.profiles.iter().filter(|p| p.deployment == deployment) {
            let named = triaged.findings.iter().flat_map(|f| {
                let functions = f.traversed.iter().filter_map(|t| function(t));
                functions.map(|(symbol, layer)| (f.id.as_str(), layer, symbol))
            });
            altaz_assess::mark_vulnerabilities(table, named);
        }
    }
    Ok(())
}

/// Name and layer of a function in a triage's words.
fn function(words: &str) -> Option<(&str, Layer)> {
    let (head, tail) = words.rsplit_once(") in ")?;
    let (symbol, _) = head.rsplit_once(" (")?;
    Some((symbol, Layer::parse(tail.split(',').next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_in_a_triages_words_is_a_name_and_a_layer() {
        let shown = [
            "nft_do_chain (net/netfilter/nf_tables_core.c) in host-kernel",
            "a::b (anonymous) (/usr/sbin/nginx) in app, while starting",
            "nothing in particular",
            "x (y) in nowhere",
        ];
        assert_eq!(
            shown.map(function),
            [
                Some(("nft_do_chain", Layer::HostKernel)),
                Some(("a::b (anonymous)", Layer::App)),
                None,
                None
            ]
        );
    }
}
