//! From speeds to ratios with their intervals, and from these to JSON and a table. Pure.
//!
//! Each measurement with a method lies between two without any. Its ratio is taken to the geometric
//! mean of these two, so that what changes steadily cancels out. The figure of a method is the
//! geometric mean over the rounds, its interval Student's t on the logarithms (95 %).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::lab::Speed;
use super::methods::{Method, Watched};

/// A geometric mean with its 95 % interval; no interval for one value alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The mean.
    pub mean: f64,
    /// Where it lies with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// Values.
    pub n: usize,
}

impl Ratio {
    /// Of these values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
        if n == 0 || logs.iter().any(|l| !l.is_finite()) {
            return None;
        }
        let mean = logs.iter().sum::<f64>() / n as f64;
        let interval = (n > 1).then(|| {
            let variance = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            let t =
                StudentsT::new(0.0, 1.0, (n - 1) as f64).map_or(f64::NAN, |t| t.inverse_cdf(0.975));
            let half = t * (variance / n as f64).sqrt();
            ((mean - half).exp(), (mean + half).exp())
        });
        Some(Self { mean: mean.exp(), interval, n })
    }

    /// What [`Figures::json`] put under this key.
    pub fn read(keys: &Value, key: &str) -> Option<Self> {
        let interval = keys[format!("{key}_interval")].as_array();
        let end = |i: usize| interval?.get(i)?.as_f64();
        let n = keys[format!("{key}_n")].as_u64()?;
        Some(Self {
            mean: keys[key].as_f64()?,
            interval: end(0).zip(end(1)),
            n: usize::try_from(n).ok()?,
        })
    }

    /// Its lower end.
    pub fn low(&self) -> Option<f64> {
        self.interval.map(|i| i.0)
    }

    /// With its interval, for people.
    pub fn text(&self) -> String {
        match self.interval {
            Some((low, high)) => format!("{:.3} ({low:.3}–{high:.3})", self.mean),
            None => format!("{:.3}", self.mean),
        }
    }
}

/// A measurement with a method between two without.
#[derive(Debug, Clone)]
pub struct Bracketed {
    /// The method.
    pub method: Method,
    /// Speeds before and after.
    pub without: (Speed, Speed),
    /// What it did.
    pub with: Watched,
}

impl Bracketed {
    /// Ratios of what is measured while the method watches: to its pauses if it has any, else to the slices beside.
    fn ratios(&self, of: fn(Speed) -> f64) -> Vec<f64> {
        match self.with.pairs.as_slice() {
            [] => vec![ratio(self.with.armed, self.without, of)],
            pairs => pairs.iter().map(|p| ratio(p.with, p.without, of)).collect(),
        }
    }

    /// Throughput in pauses over that in slices without the method.
    fn pause(&self) -> Option<f64> {
        let pauses: Vec<f64> = self.with.pairs.iter().map(|p| p.without.0.per_s).collect();
        let mean = Ratio::of(&pauses)?.mean;
        Some(mean / (self.without.0.per_s * self.without.1.per_s).sqrt())
    }
}

/// One speed over the geometric mean of those before and after it.
fn ratio(with: Speed, without: (Speed, Speed), of: fn(Speed) -> f64) -> f64 {
    of(with) / (of(without.0) * of(without.1)).sqrt()
}

/// All measurements of one service.
#[derive(Debug, Default)]
pub struct Figures {
    /// In the order in which they were made.
    pub all: Vec<Bracketed>,
}

impl Figures {
    fn of(&self, method: Method) -> impl Iterator<Item = &Bracketed> {
        self.all.iter().filter(move |b| b.method == method)
    }

    /// Whether a method had everything armed each time before it was measured.
    fn all_armed(&self, method: Method) -> bool {
        self.of(method).all(|b| b.with.all_armed)
    }

    /// Throughput while the method watches, over that without.
    pub fn armed(&self, method: Method) -> Option<Ratio> {
        self.ratio(method, |s| s.per_s)
    }

    fn ratio(&self, method: Method, of: fn(Speed) -> f64) -> Option<Ratio> {
        Ratio::of(&self.of(method).flat_map(|b| b.ratios(of)).collect::<Vec<_>>())
    }

    /// What shows that a pause of altaz is what it is to not watch at all: near 1.
    pub fn pause(&self) -> Option<Ratio> {
        Ratio::of(&self.all.iter().filter_map(Bracketed::pause).collect::<Vec<_>>())
    }

    /// The same from the method's start.
    pub fn average(&self, method: Method) -> Option<Ratio> {
        let from_start =
            self.of(method).filter_map(|b| Some(ratio(b.with.average?, b.without, |s| s.per_s)));
        Ratio::of(&from_start.collect::<Vec<_>>())
    }

    /// The same as the clock saw it, the host's other work included.
    pub fn wall(&self, method: Method) -> Option<Ratio> {
        self.ratio(method, |s| s.wall_per_s)
    }

    /// Median share of time that the host withheld from the lab in slices without a method.
    pub fn stolen(&self) -> f64 {
        let slices = self.all.iter().flat_map(|b| [b.without.0.stolen, b.without.1.stolen]);
        let mut slices: Vec<f64> = slices.collect();
        slices.sort_by(f64::total_cmp);
        slices.get(slices.len() / 2).copied().unwrap_or(0.0)
    }

    /// Processor time of a request while the method watches, over that without.
    pub fn cpu(&self, method: Method) -> Option<Ratio> {
        self.ratio(method, |s| s.cpu_us)
    }

    /// Events lost and recorded, all rounds.
    pub fn events(&self, method: Method) -> (u64, u64) {
        self.of(method).fold((0, 0), |(l, e), b| (l + b.with.lost, e + b.with.events))
    }

    /// Share of its events that a method lost.
    pub fn lost_share(&self, method: Method) -> Option<f64> {
        let (lost, kept) = self.events(method);
        (lost + kept > 0).then(|| lost as f64 / (lost + kept) as f64)
    }

    /// Requests a second without any method, geometric mean.
    pub fn unmeasured(&self) -> Option<Ratio> {
        let speeds: Vec<f64> =
            self.all.iter().flat_map(|b| [b.without.0.per_s, b.without.1.per_s]).collect();
        Ratio::of(&speeds)
    }

    /// Least and greatest throughput of two slices without any method that lie next to each other,
    /// one over the other: what the machine itself does.
    pub fn disturbance(&self) -> Option<Ratio> {
        let of = |b: &Bracketed| b.without.1.per_s / b.without.0.per_s;
        Ratio::of(&self.all.iter().map(of).collect::<Vec<_>>())
    }

    /// The keys of these figures.
    pub fn json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |key: String, ratio: Option<Ratio>| {
            if let Some(r) = ratio {
                out.insert(format!("{key}_interval"), json!(r.interval));
                out.insert(format!("{key}_n"), json!(r.n));
                out.insert(key, json!(r.mean));
            }
        };
        for method in Method::ALL {
            let key = method.key();
            if method.converges() {
                put(format!("{key}_average_ratio"), self.average(method));
                put(format!("{key}_converged_ratio"), self.armed(method));
            } else {
                put(format!("{key}_ratio"), self.armed(method));
            }
            put(format!("{key}_cpu_ratio"), self.cpu(method));
            put(format!("{key}_wall_ratio"), self.wall(method));
        }
        put("unmeasured_per_s".into(), self.unmeasured());
        put("unmeasured_after_to_before".into(), self.disturbance());
        put("pause_to_unmeasured".into(), self.pause());
        out.insert("stolen_share".into(), json!(self.stolen()));
        for method in Method::ALL.into_iter().filter(|m| self.of(*m).next().is_some()) {
            let (lost, kept) = self.events(method);
            out.insert(format!("{}_lost_events", method.key()), json!(lost));
            out.insert(format!("{}_recorded_events", method.key()), json!(kept));
            out.insert(format!("{}_lost_share", method.key()), json!(self.lost_share(method)));
        }
        for method in [Method::Altaz, Method::AltazUserland] {
            let late: u64 = self.of(method).map(|b| b.with.late).sum();
            out.insert(format!("{}_units_after_convergence", method.key()), json!(late));
            out.insert(format!("{}_all_armed", method.key()), json!(self.all_armed(method)));
        }
        out
    }
}

/// Rows of a Markdown table, of the keys of one service.
pub fn rows(keys: &Value) -> Vec<[String; 5]> {
    let mut rows = Vec::new();
    for method in Method::ALL {
        let (key, words) = (method.key(), method.words());
        let number = |name: &str| keys[format!("{key}_{name}")].as_f64();
        let lost = match (number("lost_events"), number("lost_share")) {
            (Some(_), _) if method == Method::Strace => "–".to_owned(),
            (Some(lost), Some(share)) if lost > 0.0 => {
                format!("{} ({:.1} %)", thousands(lost as u64), share * 100.0)
            }
            (Some(_), Some(_)) => "0".to_owned(),
            _ => "–".to_owned(),
        };
        let cpu = number("cpu_ratio").map_or("–".to_owned(), |r| format!("{r:.2}"));
        let mut row = |what: String, name: &str, cpu: &str, lost: &str| {
            let (ratio, n) = match Ratio::read(keys, &format!("{key}_{name}")) {
                Some(ratio) => (ratio.text(), ratio.n.to_string()),
                None => ("not measured".to_owned(), "0".to_owned()),
            };
            rows.push([what, ratio, n, cpu.to_owned(), lost.to_owned()]);
        };
        if method == Method::Altaz {
            row(format!("{words}, first 30 s"), "average_ratio", "–", "–");
        }
        if method.converges() {
            let all = keys[format!("{key}_all_armed")] != false;
            let after = if all { "after that" } else { "still arming" };
            row(format!("{words}, {after}"), "converged_ratio", &cpu, &lost);
        } else {
            row(words.to_owned(), "ratio", &cpu, &lost);
        }
    }
    rows
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A Markdown table.
pub fn table(head: [&str; 5], rows: &[[String; 5]]) -> String {
    let mut out = format!("| {} |\n|---|---|---|---|---|\n", head.join(" | "));
    for row in rows {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    out
}

/// What was promised and is not so, in words.
pub fn broken(redis: &Figures) -> Vec<String> {
    let mut broken = Vec::new();
    let mut at_least = |what: &str, value: Option<f64>, bound: f64| {
        if let Some(value) = value
            && value < bound
        {
            broken.push(format!("{what} is {value:.3}, promised is {bound}"));
        }
    };
    let (altaz, userland) = (Method::Altaz, Method::AltazUserland);
    at_least("altaz from the first second", redis.average(altaz).map(|r| r.mean), 0.95);
    at_least("altaz converged", redis.armed(altaz).map(|r| r.mean), 0.99);
    at_least("altaz converged, interval", redis.armed(altaz).and_then(|r| r.low()), 0.97);
    at_least("altaz --userland converged", redis.armed(userland).map(|r| r.mean), 0.95);
    for method in [altaz, userland] {
        let lost = redis.events(method).0;
        if lost > 0 {
            broken.push(format!("{} lost {lost} events", method.words()));
        }
    }
    broken
}

/// By service.
pub type ByService = BTreeMap<&'static str, Figures>;
