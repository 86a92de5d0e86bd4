//! What was seen while redis was watched, as figures with their bounds, and as a page of the documentation.

use altaz_e2e::left::Left;
use serde_json::Value;

use crate::Result;

/// altaz's memory may be larger at the end than at the begin by so much, KiB.
const GROWTH_KIB: f64 = 1024.0;
/// Something new is reported within this time, s.
const REPORT_S: f64 = 1.0;
/// The kernel's clock ticks in a second, by which processor times are counted.
const TICKS: f64 = 100.0;

/// A moment while it was watched.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Clock of the lab, s.
    at: f64,
    /// Requests that redis had answered.
    answered: f64,
    /// altaz's resident set, KiB.
    memory: f64,
    /// altaz's processor time, ticks.
    ticks: f64,
}

/// All of it.
#[derive(Debug)]
pub struct Soak {
    asked_seconds: u64,
    learned_s: f64,
    functions: u64,
    samples: Vec<Sample>,
    /// Answers per second without altaz.
    before: f64,
    after: f64,
    good: u64,
    bad: u64,
    lost: f64,
    /// Exit code of `altaz watch`.
    code: String,
    /// System call, and seconds from the command that needs it to the line about it.
    new: Vec<(String, Option<f64>)>,
    /// Lines of news in all.
    news: usize,
    /// What the kernel complained about, and instances of tracing that were left.
    trouble: String,
}

impl Soak {
    /// Reads what the script left.
    pub fn read(left: &Left, asked_seconds: u64) -> Result<Self> {
        let news = news(&left.text("news"))?;
        let learned = news.iter().find(|(_, n)| n["kind"] == "learned");
        let Some((learned_at, learned)) = learned else {
            return Err(format!("nothing was learned: {}", left.text("log")).into());
        };
        let [begin, end] = numbers(&left.text("learned"))?[..] else {
            return Err("the script does not say how long learning took".into());
        };
        let samples = left.text("samples");
        let samples: Vec<Sample> = samples.lines().map(sample).collect::<Result<_>>()?;
        let [good, bad] = numbers(&left.text("answers"))?[..] else {
            return Err(format!("no answers: {}", left.text("answers.log")).into());
        };
        let after_learning = || news.iter().filter(|(at, _)| at > learned_at);
        let told =
            |call: &str| after_learning().find(|(_, n)| n["syscall"] == call).map(|(at, _)| *at);
        let mut new = Vec::new();
        for line in left.text("asked").lines() {
            let (name, asked) = line.split_once(' ').ok_or("a line without a time")?;
            let asked: f64 = asked.parse()?;
            new.push((name.to_owned(), told(name).map(|at| at - asked)));
        }
        let trouble = [left.text("dmesg"), left.text("instances")].concat();
        Ok(Self {
            asked_seconds,
            learned_s: end - begin,
            functions: learned["functions"].as_u64().unwrap_or(0),
            samples,
            before: speed(&left.text("before"))?,
            after: speed(&left.text("after"))?,
            good: good as u64,
            bad: bad as u64,
            lost: metric(&left.text("metrics"), "altaz_lost_events_total")?,
            code: left.text("rc"),
            new,
            news: after_learning().count(),
            trouble,
        })
    }

    /// What is not as promised, in words.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, words: String| {
            if !holds {
                broken.push(words);
            }
        };
        let growth = self.growth();
        must(growth <= GROWTH_KIB, format!("altaz grew by {growth:.0} KiB"));
        must(self.lost == 0.0, format!("{} events were lost", self.lost));
        must(self.bad == 0 && self.good > 0, format!("{} of {} answers bad", self.bad, self.good));
        must(self.code == "0", format!("altaz watch ended with {}", self.code));
        must(self.trouble.is_empty(), format!("left behind or complained: {}", self.trouble));
        must(!self.new.is_empty(), "nothing new was tried".into());
        for (name, took) in &self.new {
            let soon = took.is_some_and(|s| (0.0..REPORT_S).contains(&s));
            must(soon, format!("{name} was reported {}", in_words(*took)));
        }
        broken
    }

    /// How much larger altaz is in the last tenth of the time than in the first, KiB.
    fn growth(&self) -> f64 {
        let tenth = (self.samples.len() / 10).max(1);
        let memory = |part: &[Sample]| median(part.iter().map(|s| s.memory).collect());
        let first = memory(&self.samples[..tenth.min(self.samples.len())]);
        let last = memory(&self.samples[self.samples.len().saturating_sub(tenth)..]);
        last - first
    }

    /// Answers a second while it was watched.
    fn during(&self) -> f64 {
        rate(self.samples.iter().map(|s| (s.at, s.answered)).collect())
    }

    /// Share of one processor that altaz used.
    fn cost(&self) -> f64 {
        rate(self.samples.iter().map(|s| (s.at, s.ticks)).collect()) / TICKS
    }

    /// The page.
    pub fn markdown(&self) -> String {
        let memory = self.samples.iter().map(|s| s.memory);
        let (least, most) = memory.fold((f64::MAX, 0.0f64), |(l, m), x| (l.min(x), m.max(x)));
        let time = match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => 0.0,
        };
        let mut rows = vec![
            ("watched for".to_owned(), format!("{time:.0} s")),
            ("learned what is normal in".into(), format!("{:.0} s", self.learned_s)),
            ("functions known then".into(), self.functions.to_string()),
            (
                "altaz's memory, least and most".into(),
                format!("{:.1} and {:.1} MiB", least / 1024.0, most / 1024.0),
            ),
            (
                format!(
                    "last tenth of the time against the first (promised ≤ {GROWTH_KIB:.0} KiB)"
                ),
                format!("{:+.0} KiB", self.growth()),
            ),
            (
                "altaz's processor time".into(),
                format!("{:.2} % of one processor", self.cost() * 100.0),
            ),
            ("events lost (promised 0)".into(), format!("{:.0}", self.lost)),
            (
                "answers checked, and wrong ones (promised 0)".into(),
                format!("{}, {}", self.good + self.bad, self.bad),
            ),
            (
                "answers a second before, meanwhile, after".into(),
                format!("{:.0}, {:.0}, {:.0}", self.before, self.during(), self.after),
            ),
            ("lines of news".into(), self.news.to_string()),
        ];
        for (name, took) in &self.new {
            rows.push((
                format!("`{name}`, asked for once (promised < {REPORT_S:.0} s)"),
                format!("reported {}", in_words(*took)),
            ));
        }
        let rows: String =
            rows.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
        format!(
            "# A service watched for long\n\n\
             Written by `make soak`; it fails with 3 when a bound is missed. What it saw is in `target/soak` after it.\n\n\
             redis in the lab, SET by 50 clients at full speed, watched by `altaz watch` for {} s; another client sets \
             random values and compares what it gets back. Now and then redis is told to do something that it has not \
             done before: to write its data into a file (`fsync`), to listen at another port (`listen`), to fork (`clone`). \
             The time is that from the command, whose program has to be started first, to the line with the new system call. \
             The lab is an emulated machine on shared processors: its speeds before, meanwhile and after vary with what else \
             runs on the host; what watching costs is measured by `make bench`.\n\n\
             | | |\n|---|---|\n{rows}",
            self.asked_seconds
        )
    }
}

fn in_words(took: Option<f64>) -> String {
    took.map_or_else(|| "never".into(), |s| format!("after {s:.2} s"))
}

/// Lines of `altaz watch`, each with the time at which it came.
fn news(text: &str) -> Result<Vec<(f64, Value)>> {
    let line = |line: &str| -> Result<(f64, Value)> {
        let (at, line) = line.split_once(' ').ok_or("a line without a time")?;
        Ok((at.parse()?, serde_json::from_str(line)?))
    };
    text.lines().map(line).collect()
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    text.split_whitespace().map(|word| Ok(word.parse()?)).collect()
}

fn sample(line: &str) -> Result<Sample> {
    match numbers(line)?[..] {
        [at, answered, memory, ticks] => Ok(Sample { at, answered, memory, ticks }),
        _ => Err(format!("no sample: {line}").into()),
    }
}

/// Answers a second, by the lines of `TIME ANSWERED`.
fn speed(text: &str) -> Result<f64> {
    let point = |line: &str| match numbers(line)?[..] {
        [at, answered] => Ok((at, answered)),
        _ => Err(format!("no speed: {line}").into()),
    };
    Ok(rate(text.lines().map(point).collect::<Result<_>>()?))
}

/// Growth of a counter in a second, from its first to its last reading; 0 where there are no two.
fn rate(points: Vec<(f64, f64)>) -> f64 {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => (last.1 - first.1) / (last.0 - first.0),
        _ => 0.0,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn metric(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find(|l| l.starts_with(name)).ok_or(format!("no metric {name}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(memory: impl Fn(usize) -> f64) -> Soak {
        let sample = |i: usize| Sample {
            at: i as f64 * 5.0,
            answered: i as f64 * 5000.0,
            memory: memory(i),
            ticks: i as f64,
        };
        Soak {
            asked_seconds: 100,
            learned_s: 30.0,
            functions: 700,
            samples: (0..20).map(sample).collect(),
            before: 1000.0,
            after: 1000.0,
            good: 50,
            bad: 0,
            lost: 0.0,
            code: "0".into(),
            new: vec![("fsync".into(), Some(0.4))],
            news: 12,
            trouble: String::new(),
        }
    }

    #[test]
    fn what_is_as_promised_is_not_complained_about() {
        let soak = soak(|_| 20_000.0);
        assert_eq!(soak.broken(), Vec::<String>::new());
        assert_eq!((soak.during(), soak.cost()), (1000.0, 0.002));
        assert!(
            soak.markdown()
                .contains("| `fsync`, asked for once (promised < 1 s) | reported after 0.40 s |")
        );
    }

    #[test]
    fn each_promise_that_is_missed_is_named() {
        let mut soak = soak(|i| 20_000.0 + 100.0 * i as f64);
        soak.lost = 3.0;
        soak.bad = 1;
        soak.code = "4".into();
        soak.new = vec![("fsync".into(), Some(1.5)), ("clone".into(), None)];
        let broken = soak.broken();
        assert_eq!(broken.len(), 6, "{broken:#?}");
        assert!(broken[0].contains("1800 KiB") && broken[5].contains("never"), "{broken:#?}");
    }
}
