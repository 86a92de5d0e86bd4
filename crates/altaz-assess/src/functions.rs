//! The functions behind the figures, one by one, and how their number grew.

use std::collections::HashMap;
use std::sync::Arc;

use altaz_profile::results::functions::{FunctionRow, FunctionTable, LayerFunctions};
use altaz_profile::{Layer, Profile};

use crate::components::grouped;
use crate::select::{Seen, select};

/// Every function that the figures of [`crate::assess()`] count, by layer.
pub fn functions(profile: &Profile) -> FunctionTable {
    let selection = select(profile);
    let manifest = &profile.manifest;
    let of_layer = |layer: Layer| {
        let seen: Vec<&Seen<'_>> =
            selection.serve.iter().filter(|s| s.unit.layer == layer).collect();
        (!seen.is_empty()).then(|| self::layer(layer, &seen, selection.windows))
    };
    FunctionTable {
        deployment: manifest.deployment.clone(),
        layers: manifest.layers.iter().filter_map(|l| of_layer(l.name)).collect(),
    }
}

fn layer(layer: Layer, seen: &[&Seen<'_>], windows: usize) -> LayerFunctions {
    let (components, of) = grouped(seen);
    let mut growth = vec![0_u64; windows];
    for first in seen.iter().filter_map(|s| s.windows.first()) {
        if let Some(new) = growth.get_mut(*first as usize) {
            *new += 1;
        }
    }
    let mut sum = 0;
    for new in &mut growth {
        sum += *new;
        *new = sum;
    }
    let rows = seen.iter().zip(of).map(|(s, component)| FunctionRow {
        symbol: Arc::clone(&s.unit.symbol),
        binary: Arc::clone(&s.unit.binary),
        offset: s.unit.offset,
        component,
        size: s.unit.size,
        covered: s.covered,
        file: s.unit.file.clone(),
        line: s.unit.line,
        first_window: s.windows.first().copied(),
        windows: s.windows.len() as u32,
        age_years: None,
        vulnerabilities: None,
    });
    LayerFunctions { layer, components, functions: rows.collect(), growth }
}

/// Marks the functions that known vulnerabilities name: identifier, layer and function's name. All
/// others are marked as looked at.
pub fn mark_vulnerabilities<'a>(
    table: &mut FunctionTable,
    named: impl IntoIterator<Item = (&'a str, Layer, &'a str)>,
) {
    let mut by_name: HashMap<(Layer, &str), Vec<Arc<str>>> = HashMap::new();
    for (id, layer, symbol) in named {
        let known = by_name.entry((layer, symbol)).or_default();
        if !known.iter().any(|k| **k == *id) {
            known.push(id.into());
        }
    }
    for l in &mut table.layers {
        for f in &mut l.functions {
            let known = by_name.get(&(l.layer, &*f.symbol));
            let marked = f.vulnerabilities.get_or_insert_default();
            marked.extend(known.into_iter().flatten().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};
    use crate::{Options, assess};

    #[test]
    fn the_functions_are_those_that_the_figures_count() {
        let mut p = profile();
        p.units = vec![
            unit(Layer::HostKernel, "kernel", 1, &[1, 2]),
            unit(Layer::HostKernel, "kernel", 2, &[3]),
            unit(Layer::HostKernel, "[tun]", 3, &[1]),
            unit(Layer::App, "/a", 1, &[2]),
        ];
        let mut background = unit(Layer::HostKernel, "kernel", 9, &[1]);
        background.context = altaz_profile::Context::Background;
        p.units.push(background);
        let table = functions(&p);
        let figures = assess(&p, &Options::default()).unwrap();
        for l in &figures.layers {
            let listed = table.layers.iter().find(|t| t.layer == l.name);
            let rows = listed.map_or(&[][..], |t| &t.functions);
            assert_eq!(rows.len() as u64, l.functions, "{}", l.name);
            assert_eq!(rows.iter().map(|r| r.size).sum::<u64>(), l.bytes, "{}", l.name);
            for c in &l.components {
                let names = listed.map_or(&[][..], |t| &t.components);
                let of = |r: &&FunctionRow| *names[r.component as usize] == *c.name;
                assert_eq!(rows.iter().filter(of).count() as u64, c.functions, "{}", c.name);
            }
        }
        let kernel = table.layers.iter().find(|t| t.layer == Layer::HostKernel).unwrap();
        assert_eq!(kernel.growth[..3], [2, 2, 3], "seen in the first, the first and the third");
        assert_eq!(kernel.growth.last(), Some(&3));
    }

    #[test]
    fn a_vulnerability_marks_the_functions_of_its_name_in_its_layer_and_the_others_as_looked_at() {
        let mut p = profile();
        p.units = vec![
            unit(Layer::HostKernel, "kernel", 1, &[1]),
            unit(Layer::HostKernel, "kernel", 2, &[1]),
            unit(Layer::App, "/a", 1, &[1]),
        ];
        let mut table = functions(&p);
        let named = [
            ("CVE-2024-1", Layer::HostKernel, "function_1"),
            ("CVE-2024-1", Layer::HostKernel, "function_1"),
            ("CVE-2024-2", Layer::HostKernel, "function_1"),
            ("CVE-2024-3", Layer::GuestKernel, "function_1"),
        ];
        mark_vulnerabilities(&mut table, named);
        let mut marked: Vec<(Layer, String, Vec<String>)> = Vec::new();
        for l in &table.layers {
            for f in &l.functions {
                let known = f.vulnerabilities.iter().flatten().map(ToString::to_string).collect();
                assert!(f.vulnerabilities.is_some());
                marked.push((l.layer, f.symbol.to_string(), known));
            }
        }
        let both = vec!["CVE-2024-1".to_owned(), "CVE-2024-2".to_owned()];
        assert_eq!(
            marked,
            [
                (Layer::App, "function_1".to_owned(), vec![]),
                (Layer::HostKernel, "function_1".to_owned(), both),
                (Layer::HostKernel, "function_2".to_owned(), vec![]),
            ]
        );
    }
}
