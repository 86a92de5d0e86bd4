//! Which assumption decides a comparison: Sobol indices of groups, rank correlation and one-at-a-time
//! of single ones, all of the logarithm of the ratio of two exposures.

use altaz_profile::results::risk::{Figure, InputSensitivity, Pair, Sensitivity};

use super::assumption::Group;
use super::evaluate::{Inputs, Row};
use super::run::{Drawn, Part, Settings};
use super::stat::{quantile, rank_correlation, ranks, sobol};
use super::stream::{Sample, Streams};
use super::subject::Subject;

/// Single assumptions listed beside the groups.
const SINGLES: usize = 6;
/// Below this share of the variance an input is not listed.
const NEGLIGIBLE: f64 = 0.005;

/// For every pair whose ratio varies.
pub(crate) fn sensitivity(
    subjects: &[Subject],
    drawn: &[Drawn],
    pairs: &[Pair],
    inputs: &Inputs,
    columns: &[Vec<f64>],
    streams: Streams,
    settings: &Settings,
) -> Vec<Sensitivity> {
    let samples = Samples::new(drawn, inputs, streams, settings.sobol_draws as usize);
    let column_ranks: Vec<Vec<f64>> = columns.iter().map(|c| ranks(c)).collect();
    let medians: Vec<[f64; 3]> = columns
        .iter()
        .map(|c| {
            let mut sorted = c.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            [quantile(&sorted, 0.05), quantile(&sorted, 0.5), quantile(&sorted, 0.95)]
        })
        .collect();
    let index = |name: &str| subjects.iter().position(|s| s.name == name);
    pairs
        .iter()
        .filter(|p| !p.equal)
        .filter_map(|p| {
            let (a, b) = (index(&p.a)?, index(&p.b)?);
            let at = |d: usize| drawn[d].values(p.figure.into()).exposure;
            let ratio = log_ratio(&at(a), &at(b))?;
            let mut found = samples.groups(a, b, p.figure);
            let ratio_ranks = ranks(&ratio);
            let single = |c: usize| Single { a, b, figure: p.figure, column: c };
            let mut singles: Vec<InputSensitivity> = (0..columns.len())
                .filter_map(|c| {
                    let spearman = rank_correlation(&column_ranks[c], &ratio_ranks)?;
                    if spearman.powi(2) < NEGLIGIBLE {
                        return None;
                    }
                    Some(single(c).at(drawn, inputs, &medians, spearman))
                })
                .collect();
            let weight = |s: &InputSensitivity| s.spearman.unwrap_or(0.0).abs();
            singles.sort_by(|x, y| {
                weight(y).total_cmp(&weight(x)).then_with(|| x.input.cmp(&y.input))
            });
            // An assumption that turns the order over is listed however little it correlates.
            let mut kept = 0;
            singles.retain(|s| {
                kept += 1;
                kept <= SINGLES || s.flips
            });
            found.extend(singles);
            Some(Sensitivity { a: p.a.clone(), b: p.b.clone(), figure: p.figure, inputs: found })
        })
        .collect()
}

/// `ln(a/b)` in every draw; `None` where one of them is zero or nothing varies.
fn log_ratio(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    a.iter()
        .zip(b)
        .map(|(a, b)| (*a > 0.0 && *b > 0.0).then(|| (a / b).ln()))
        .collect::<Option<Vec<f64>>>()
}

/// Exposure of a figure for one row.
fn exposure(drawn: &Drawn, figure: Figure, row: &impl Row) -> f64 {
    let part = Part::from(figure);
    let values = drawn.compiled.evaluate(row);
    let layers = drawn.compiled.layers.iter().zip(&values);
    layers.filter_map(|(l, v)| part.of(l.owner, l.shared, v)).map(|(_, exposure)| exposure).sum()
}

/// One assumption of one pair.
struct Single {
    a: usize,
    b: usize,
    figure: Figure,
    column: usize,
}

impl Single {
    /// The ratio with it held at both ends, all others at their medians.
    fn at(
        &self,
        drawn: &[Drawn],
        inputs: &Inputs,
        quantiles: &[[f64; 3]],
        spearman: f64,
    ) -> InputSensitivity {
        let ratio = |end: usize| {
            let row = |c: usize| quantiles[c][if c == self.column { end } else { 1 }];
            exposure(&drawn[self.a], self.figure, &row)
                / exposure(&drawn[self.b], self.figure, &row)
        };
        let ends = [ratio(0), ratio(2)];
        let one_at_a_time = ends.iter().all(|r| r.is_finite()).then_some(ends);
        InputSensitivity {
            input: inputs.columns()[self.column].name.clone(),
            spearman: Some(spearman),
            sobol_first: None,
            sobol_total: None,
            one_at_a_time,
            flips: one_at_a_time.is_some_and(|[low, high]| (low < 1.0) != (high < 1.0)),
        }
    }
}

/// Exposures on two samples and with each group swapped, for every deployment and figure.
struct Samples {
    groups: Vec<Group>,
    /// By deployment, then figure, then: A, B, A with each group of B.
    values: Vec<[Vec<Vec<f64>>; 3]>,
}

impl Samples {
    fn new(drawn: &[Drawn], inputs: &Inputs, streams: Streams, n: usize) -> Self {
        let (a, b) = (inputs.draw(streams, Sample::A, n), inputs.draw(streams, Sample::B, n));
        let used = |g: &Group| inputs.columns().iter().any(|c| c.group == *g);
        let groups: Vec<Group> = Group::ALL.into_iter().filter(used).collect();
        let values = drawn.iter().map(|d| Self::of(d, inputs, &a, &b, &groups, n)).collect();
        Self { groups, values }
    }

    fn of(
        drawn: &Drawn,
        inputs: &Inputs,
        a: &[Vec<f64>],
        b: &[Vec<f64>],
        groups: &[Group],
        n: usize,
    ) -> [Vec<Vec<f64>>; 3] {
        let mut values: [Vec<Vec<f64>>; 3] = Default::default();
        let mut run = |from_b: &dyn Fn(Group) -> bool| {
            let mut columns: [Vec<f64>; 3] = Default::default();
            let swapped: Vec<bool> = inputs.columns().iter().map(|c| from_b(c.group)).collect();
            for i in 0..n {
                let row = |c: usize| if swapped[c] { b[c][i] } else { a[c][i] };
                let layers = drawn.compiled.evaluate(&row);
                for (figure, column) in Figure::ALL.into_iter().zip(&mut columns) {
                    let part = Part::from(figure);
                    let sum = drawn
                        .compiled
                        .layers
                        .iter()
                        .zip(&layers)
                        .filter_map(|(l, v)| part.of(l.owner, l.shared, v))
                        .map(|(_, exposure)| exposure)
                        .sum();
                    column.push(sum);
                }
            }
            for (all, column) in values.iter_mut().zip(columns) {
                all.push(column);
            }
        };
        run(&|_| false);
        run(&|_| true);
        groups.iter().for_each(|&g| run(&|of| of == g));
        values
    }

    /// The groups' indices for a pair, weightiest first.
    fn groups(&self, a: usize, b: usize, figure: Figure) -> Vec<InputSensitivity> {
        let at = Figure::ALL.iter().position(|f| *f == figure).unwrap_or(0);
        let ratio = |run: usize| log_ratio(&self.values[a][at][run], &self.values[b][at][run]);
        let (Some(base), Some(other)) = (ratio(0), ratio(1)) else { return Vec::new() };
        let mut found: Vec<InputSensitivity> = self
            .groups
            .iter()
            .enumerate()
            .filter_map(|(g, group)| {
                let indices = sobol(&base, &other, &ratio(g + 2)?)?;
                (indices.total >= NEGLIGIBLE).then(|| InputSensitivity {
                    input: group.as_str().into(),
                    spearman: None,
                    sobol_first: Some(indices.first),
                    sobol_total: Some(indices.total),
                    one_at_a_time: None,
                    flips: false,
                })
            })
            .collect();
        let total = |s: &InputSensitivity| s.sobol_total.unwrap_or(0.0);
        found.sort_by(|x, y| total(y).total_cmp(&total(x)).then_with(|| x.input.cmp(&y.input)));
        found
    }
}
