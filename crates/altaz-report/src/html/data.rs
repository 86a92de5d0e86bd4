//! The functions of a page as data for its script: names once for all deployments, sorted, so that
//! their numbers sort as they do; everything else in columns of numbers. A hundred thousand
//! functions take a few megabytes.

use std::collections::BTreeSet;

use altaz_profile::results::DeploymentResult;
use altaz_profile::results::functions::{FunctionRow, FunctionTable, LayerFunctions};
use serde::Serialize;

use crate::style::clean;

/// The largest number that a script reads as it is written.
const LARGEST: u64 = (1 << 53) - 1;

/// What a page's script reads.
#[derive(Serialize)]
struct Data {
    strings: Vec<String>,
    deployments: Vec<Deployment>,
}

#[derive(Serialize)]
struct Deployment {
    name: String,
    layers: Vec<Layer>,
}

/// Columns of the functions of a layer. Numbers of names are places in [`Data::strings`]; −1 is
/// not known.
#[derive(Serialize)]
struct Layer {
    name: &'static str,
    owner: &'static str,
    windows: usize,
    components: Vec<usize>,
    symbol: Vec<usize>,
    binary: Vec<usize>,
    component: Vec<u32>,
    size: Vec<u64>,
    covered: Vec<i64>,
    first: Vec<i64>,
    seen: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cves: Option<Vec<Vec<usize>>>,
}

/// The data of these deployments; `None` where no functions are known.
pub fn data(deployments: &[(&DeploymentResult, Option<&FunctionTable>)]) -> Option<String> {
    if deployments.iter().all(|(_, t)| t.is_none()) {
        return None;
    }
    let mut names = BTreeSet::new();
    for l in deployments.iter().filter_map(|(_, t)| *t).flat_map(|t| &t.layers) {
        collect(l, &mut names);
    }
    let strings: Vec<String> = names.into_iter().collect();
    let deployments = deployments
        .iter()
        .map(|(d, table)| Deployment {
            name: clean(&d.name),
            layers: table
                .map_or(&[][..], |t| &t.layers)
                .iter()
                .map(|l| layer(d, l, &strings))
                .collect(),
        })
        .collect();
    // Only maps with keys that are no text cannot be written as JSON.
    serde_json::to_string(&Data { strings, deployments }).ok()
}

/// Name of a function, or where it is.
fn symbol(f: &FunctionRow) -> String {
    if f.symbol.is_empty() { format!("(no name) +{:#x}", f.offset) } else { clean(&f.symbol) }
}

fn source(f: &FunctionRow) -> Option<String> {
    let file = clean(f.file.as_deref()?);
    Some(f.line.map_or_else(|| file.clone(), |line| format!("{file}:{line}")))
}

fn collect(l: &LayerFunctions, names: &mut BTreeSet<String>) {
    let mut add = |text: String| {
        names.insert(text);
    };
    l.components.iter().for_each(|c| add(clean(c)));
    for f in &l.functions {
        add(symbol(f));
        add(clean(&f.binary));
        f.vulnerabilities.iter().flatten().for_each(|v| add(clean(v)));
        if let Some(source) = source(f) {
            add(source);
        }
    }
}

fn layer(d: &DeploymentResult, l: &LayerFunctions, strings: &[String]) -> Layer {
    let at = |text: &String| strings.binary_search(text).unwrap_or_default();
    let known = |n: u64| n.min(LARGEST) as i64;
    let all = &l.functions;
    let column = |of: &dyn Fn(&FunctionRow) -> i64| all.iter().map(of).collect::<Vec<i64>>();
    Layer {
        name: l.layer.as_str(),
        owner: d.layer(l.layer).map_or("", |f| f.owner.as_str()),
        windows: l.growth.len(),
        components: l.components.iter().map(|c| at(&clean(c))).collect(),
        symbol: all.iter().map(|f| at(&symbol(f))).collect(),
        binary: all.iter().map(|f| at(&clean(&f.binary))).collect(),
        component: all.iter().map(|f| f.component).collect(),
        size: all.iter().map(|f| f.size.min(LARGEST)).collect(),
        covered: column(&|f| f.covered.map_or(-1, known)),
        first: column(&|f| f.first_window.map_or(-1, i64::from)),
        seen: all.iter().map(|f| f.windows).collect(),
        source: all
            .iter()
            .any(|f| f.file.is_some())
            .then(|| column(&|f| source(f).map_or(-1, |s| at(&s) as i64))),
        age: all.iter().any(|f| f.age_years.is_some()).then(|| {
            all.iter().map(|f| f.age_years.filter(|a| a.is_finite()).unwrap_or(-1.0)).collect()
        }),
        cves: all.iter().any(|f| f.vulnerabilities.is_some()).then(|| {
            all.iter()
                .map(|f| f.vulnerabilities.iter().flatten().map(|v| at(&clean(v))).collect())
                .collect()
        }),
    }
}
