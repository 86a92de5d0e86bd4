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

    /// Rows of a Markdown table.
    pub fn rows(&self) -> Vec<[String; 4]> {
        let mut rows = Vec::new();
        for method in Method::ALL {
            let lost = self.events(method).0;
            let lost = match self.lost_share(method) {
                _ if method == Method::Strace => "–".to_owned(),
                Some(share) if lost > 0 => format!("{} ({:.1} %)", thousands(lost), share * 100.0),
                Some(_) => "0".to_owned(),
                None => "–".to_owned(),
            };
            let mut row = |what: String, ratio: Option<Ratio>, cpu: Option<Ratio>, lost: &str| {
                if let Some(ratio) = ratio {
                    let cpu = cpu.map_or("–".to_owned(), |r| format!("{:.2}", r.mean));
                    rows.push([what, ratio.text(), cpu, lost.to_owned()]);
                }
            };
            let words = method.words();
            if method.converges() {
                row(format!("{words}, first 30 s"), self.average(method), None, "–");
                let after = if self.all_armed(method) { "after that" } else { "still arming" };
                row(format!("{words}, {after}"), self.armed(method), self.cpu(method), &lost);
            } else {
                row(words.to_owned(), self.armed(method), self.cpu(method), &lost);
            }
        }
        rows
    }
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
pub fn table(head: [&str; 4], rows: &[[String; 4]]) -> String {
    let mut out = format!("| {} |\n|---|---|---|---|\n", head.join(" | "));
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
