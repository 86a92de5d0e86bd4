//! The priors: ranges of the assumptions, and what components are, from a TOML text.
//!
//! The built-in ones are `data/priors.toml`. A file of a user's own must state every range: a silent
//! default would be an assumption that nobody sees.

use altaz_profile::Layer;
use serde::Deserialize;
use toml::Spanned;

use super::assumption::Fixed;
use super::stat::LogNormal;
use crate::place::{Place, Problem, Problems};

/// The built-in priors.
const BUILT_IN: &str = include_str!("../../data/priors.toml");

/// Language that code is taken to be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cpp,
    /// Go.
    Go,
    /// Rust.
    Rust,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::C, Self::Cpp, Self::Go, Self::Rust];

    /// Name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Go => "go",
            Self::Rust => "rust",
        }
    }

    /// The language of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.as_str() == name)
    }

    /// Its bytes per line.
    pub(crate) const fn bytes_per_line(self) -> Fixed {
        match self {
            Self::C => Fixed::BytesPerLineC,
            Self::Cpp => Fixed::BytesPerLineCpp,
            Self::Go => Fixed::BytesPerLineGo,
            Self::Rust => Fixed::BytesPerLineRust,
        }
    }

    /// Its memory-safety density.
    pub(crate) const fn memory(self) -> Fixed {
        match self {
            Self::C => Fixed::MemoryC,
            Self::Cpp => Fixed::MemoryCpp,
            Self::Go => Fixed::MemoryGo,
            Self::Rust => Fixed::MemoryRust,
        }
    }
}

/// Range of an assumption.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// Which one.
    pub fixed: Fixed,
    /// What it is, with its unit.
    pub what: String,
    /// 5 % quantile.
    pub low: f64,
    /// 95 % quantile.
    pub high: f64,
    /// Whether it was published.
    pub published: bool,
    /// Where it comes from.
    pub source: String,
}

impl Range {
    /// The log-normal distribution of the range.
    pub fn distribution(&self) -> LogNormal {
        LogNormal::from_range(self.low, self.high)
    }
}

/// How a component's vulnerabilities were counted.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Source lines in which they were found.
    pub lines: f64,
    /// Vulnerabilities with an identifier.
    pub cves: u64,
    /// Years in which they came in.
    pub years: f64,
    /// Median years from introduction to fix in this class, where counted.
    pub lifetime: Option<f64>,
    /// Only those with a shown consequence get an identifier.
    pub selective: bool,
}

/// What a component is: how to recognise it, its language, its history.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Name.
    pub name: String,
    /// Language.
    pub language: Language,
    /// Its history, where one was counted.
    pub history: Option<History>,
    /// Where that comes from.
    pub source: String,
    /// Source directories of a kernel, with everything below.
    pub directories: Vec<String>,
    /// Modules of a kernel, `*` at the end for any.
    pub modules: Vec<String>,
    /// First words of function names, for kernels without source files.
    pub prefixes: Vec<String>,
    /// Paths of binaries, `*` at either end for any.
    pub binaries: Vec<String>,
    /// Prefixes of packages.
    pub packages: Vec<String>,
    /// Layers in which everything else is of this class.
    pub layers: Vec<Layer>,
}

/// The priors of an assessment.
#[derive(Debug, Clone, PartialEq)]
pub struct Priors {
    /// Name, with the date of the figures.
    pub name: String,
    /// A range for each of [`Fixed::ALL`], in that order.
    pub ranges: Vec<Range>,
    /// The classes.
    pub classes: Vec<Class>,
    /// Time and history are left out: every line is as risky as every other.
    pub uniform: bool,
    /// What the history of a kernel's areas was counted in, where the priors say so.
    pub counted: Option<Counted>,
}

/// What identifiers were counted in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// Date of the records, `2026-08-21`.
    pub date: String,
    /// Records of the kernel's CNA by then.
    pub records: u64,
}

impl Priors {
    /// Reads priors.
    ///
    /// # Errors
    /// Everything that is wrong, with its places.
    pub fn parse(text: &str, file: &str) -> Result<Self, Problems> {
        let place = Place::new(file, text);
        let raw: Raw = toml::from_str(text).map_err(|e| place.syntax(&e))?;
        let mut problems = Vec::new();
        let ranges = ranges(&raw, &place, &mut problems);
        let classes = raw.class.iter().filter_map(|c| class(c, &place, &mut problems)).collect();
        if problems.is_empty() {
            Ok(Self { name: raw.name, ranges, classes, uniform: false, counted: raw.counted })
        } else {
            Err(Problems { what: "priors", problems })
        }
    }

    /// The built-in priors.
    ///
    /// # Errors
    /// Never; a test holds that.
    pub fn built_in() -> Result<Self, Problems> {
        Self::parse(BUILT_IN, "built-in priors")
    }

    /// The essay's own assumptions: every line of code is as risky as every other, an interface counts
    /// by its calls, neither time nor distance matters.
    pub fn uniform() -> Self {
        let point = |fixed: Fixed| {
            let value = match fixed {
                Fixed::Exploitable => 0.005,
                Fixed::MemoryC | Fixed::MemoryCpp | Fixed::MemoryGo | Fixed::MemoryRust => 700.0,
                Fixed::Other => 300.0,
                Fixed::BytesPerLineC
                | Fixed::BytesPerLineCpp
                | Fixed::BytesPerLineGo
                | Fixed::BytesPerLineRust => 10.0,
                _ => 1.0,
            };
            Range {
                fixed,
                what: fixed.name().into(),
                low: value,
                high: value,
                published: true,
                source: "uniform density: J. Bottomley, \"Containers and Cloud Security\", 2018"
                    .into(),
            }
        };
        Self {
            name: "uniform density (J. Bottomley, 2018)".into(),
            ranges: Fixed::ALL.iter().map(|&f| point(f)).collect(),
            classes: Vec::new(),
            uniform: true,
            counted: None,
        }
    }

    /// The range of an assumption.
    pub fn range(&self, fixed: Fixed) -> Option<&Range> {
        self.ranges.get(fixed as usize)
    }

    /// Distribution of an assumption; a point at one should it be missing.
    pub fn distribution(&self, fixed: Fixed) -> LogNormal {
        self.range(fixed).map_or(LogNormal { mu: 0.0, sigma: 0.0 }, Range::distribution)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    counted: Option<Counted>,
    #[serde(default)]
    assumption: Vec<RawRange>,
    #[serde(default)]
    class: Vec<RawClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    name: Spanned<String>,
    what: String,
    low: Spanned<f64>,
    high: f64,
    published: bool,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    name: Spanned<String>,
    language: Spanned<String>,
    source: String,
    lines: Option<f64>,
    cves: Option<u64>,
    years: Option<f64>,
    lifetime: Option<f64>,
    practice: Option<Spanned<String>>,
    #[serde(default)]
    directories: Vec<String>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    binaries: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    layers: Vec<Spanned<String>>,
}

fn ranges(raw: &Raw, place: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<Range> {
    let mut found: Vec<Option<Range>> = vec![None; Fixed::ALL.len()];
    for r in &raw.assumption {
        let name = r.name.get_ref();
        let Some(fixed) = Fixed::parse(name) else {
            problems.push(place.at(r.name.span(), format!("there is no assumption `{name}`")));
            continue;
        };
        let low = *r.low.get_ref();
        if !(low.is_finite() && r.high.is_finite() && low > 0.0 && low <= r.high) {
            let what = format!("`{name}`: 0 < low ≤ high must hold, not {low} and {}", r.high);
            problems.push(place.at(r.low.span(), what));
            continue;
        }
        if let Some(slot) = found.get_mut(fixed as usize) {
            *slot = Some(Range {
                fixed,
                what: r.what.clone(),
                low,
                high: r.high,
                published: r.published,
                source: r.source.clone(),
            });
        }
    }
    for (&fixed, _) in Fixed::ALL.iter().zip(&found).filter(|(_, r)| r.is_none()) {
        let known = raw.assumption.iter().any(|r| r.name.get_ref() == fixed.name());
        if !known {
            problems.push(place.whole(format!("the assumption `{}` is missing", fixed.name())));
        }
    }
    found.into_iter().flatten().collect()
}

fn class(raw: &RawClass, place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Class> {
    let before = problems.len();
    let name = raw.name.get_ref();
    let language = Language::parse(raw.language.get_ref());
    if language.is_none() {
        let what = format!("`{name}`: the language is one of c, cpp, go, rust");
        problems.push(place.at(raw.language.span(), what));
    }
    let mut layers = Vec::new();
    for layer in &raw.layers {
        match Layer::parse(layer.get_ref()) {
            Some(layer) => layers.push(layer),
            None => problems.push(place.at(layer.span(), place.unknown_layer(layer.get_ref()))),
        }
    }
    let selective = match raw.practice.as_ref().map(|p| (p.get_ref().as_str(), p.span())) {
        None | Some(("broad", _)) => false,
        Some(("selective", _)) => true,
        Some((other, span)) => {
            let what = format!("`{name}`: practice is `broad` or `selective`, not `{other}`");
            problems.push(place.at(span, what));
            false
        }
    };
    let positive = |n: f64| n.is_finite() && n > 0.0;
    let history = match (raw.lines, raw.cves, raw.years) {
        (None, None, None) => None,
        (Some(lines), Some(cves), Some(years))
            if positive(lines) && positive(years) && raw.lifetime.is_none_or(positive) =>
        {
            Some(History { lines, cves, years, lifetime: raw.lifetime, selective })
        }
        _ => {
            let what =
                format!("`{name}`: a history is `lines`, `cves` and `years`, greater than 0");
            problems.push(place.at(raw.name.span(), what));
            None
        }
    };
    let language = language.filter(|_| problems.len() == before)?;
    Some(Class {
        name: name.clone(),
        language,
        history,
        source: raw.source.clone(),
        directories: raw.directories.clone(),
        modules: raw.modules.clone(),
        prefixes: raw.prefixes.clone(),
        binaries: raw.binaries.clone(),
        packages: raw.packages.clone(),
        layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_priors_are_complete_and_every_range_has_its_source() {
        let p = Priors::built_in().unwrap();
        assert_eq!(p.ranges.len(), Fixed::ALL.len());
        for (range, &fixed) in p.ranges.iter().zip(Fixed::ALL) {
            assert_eq!(range.fixed, fixed);
            assert!(range.source.len() > 8 && !range.what.is_empty(), "{}", fixed.name());
        }
        assert!(p.classes.iter().all(|c| !c.source.is_empty()));
        let rust = p.range(Fixed::MemoryRust).unwrap().distribution();
        assert!((rust.at(0.0) - 0.2).abs() < 1e-9, "the published figure is the median");
    }

    #[test]
    fn the_age_range_is_the_published_one() {
        // e^(5/τ) at both ends: 3.4 and 7.4 times.
        let p = Priors::built_in().unwrap();
        let tau = p.range(Fixed::AgeTau).unwrap();
        assert!(((5.0 / tau.high).exp() - 3.4).abs() < 0.02);
        assert!(((5.0 / tau.low).exp() - 7.4).abs() < 0.02);
    }

    #[test]
    fn mistakes_are_named_with_their_lines_all_of_them() {
        let text = BUILT_IN
            .replacen("low = 5.0", "low = -5.0", 1)
            .replacen("name = \"lifetime\"", "name = \"livetime\"", 1)
            .replacen("practice = \"broad\"", "practice = \"wide\"", 1);
        let e = Priors::parse(&text, "my.toml").unwrap_err().to_string();
        for part in ["my.toml:", "-5", "`livetime`", "`lifetime` is missing", "`wide`"] {
            assert!(e.contains(part), "{part} in {e}");
        }
        assert!(Priors::parse("name = 3", "x.toml").unwrap_err().to_string().contains("x.toml:1"));
    }
}
