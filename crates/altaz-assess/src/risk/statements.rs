//! What the essay says against what was measured or modelled (J. Bottomley, "Containers and Cloud
//! Security", 2018): which figure agrees with it and which contradicts it.

use altaz_profile::results::risk::{DeploymentRisk, Figure, Pair, Statement, Verdict};
use altaz_profile::{Boundary, Layer};

use super::priors::Priors;
use super::subject::Subject;

const ESSAY: &str = "J. Bottomley, 2018";
/// "Equal" and "about" leave this much room either way.
const ABOUT: f64 = 0.1;

/// Systems of the essay, and the deployments that stand for them.
const ROLES: &[(&str, &[&str])] = &[
    ("physical", &["physical", "process"]),
    ("login", &["login"]),
    ("container", &["container", "runc", "crun"]),
    ("hypervisor", &["hypervisor", "qemu-microvm", "qemu"]),
    ("nested", &["nested", "runc-in-qemu"]),
    ("sandbox", &["sandbox", "runsc-systrap", "runsc-ptrace"]),
];

/// Everything that statements may look at.
struct Seen<'a> {
    subjects: &'a [Subject],
    deployments: &'a [DeploymentRisk],
    pairs: &'a [Pair],
}

/// The statements of which the deployments are there.
pub(crate) fn statements(
    subjects: &[Subject],
    deployments: &[DeploymentRisk],
    pairs: &[Pair],
    priors: &Priors,
) -> Vec<Statement> {
    let seen = Seen { subjects, deployments, pairs };
    let mut all = vec![
        seen.no_hap("physical"),
        seen.equal_totals(),
        seen.half_of_a_container(),
        seen.smaller(
            "physical",
            "hypervisor",
            Figure::TotalVap,
            "a hypervisor's total VAP is larger than the physical machine's",
        ),
        seen.smaller(
            "container",
            "hypervisor",
            Figure::TotalVap,
            "a container's total VAP beats the hypervisor's",
        ),
        seen.smaller(
            "container",
            "physical",
            Figure::TenantVap,
            "the tenant's part of a container's VAP is smaller than that of a physical machine",
        ),
        seen.smaller(
            "container",
            "hypervisor",
            Figure::TenantVap,
            "the tenant's part of a container's VAP is smaller than that of a virtual machine",
        ),
        seen.ten_times(),
        seen.smaller(
            "container",
            "login",
            Figure::Hap,
            "a container's HAP is less than a shared login's, thanks to namespaces",
        ),
        seen.smaller(
            "hypervisor",
            "container",
            Figure::Hap,
            "a hypervisor's HAP is smaller than a container's",
        ),
        seen.smaller(
            "sandbox",
            "container",
            Figure::Hap,
            "a sandbox's HAP is smaller than a container's",
        ),
        seen.shrink_or_grow(),
        seen.smaller(
            "container",
            "nested",
            Figure::TotalVap,
            "a container nested in a hypervisor has the larger total VAP",
        ),
        seen.smaller(
            "container",
            "nested",
            Figure::TenantVap,
            "nesting hands the kernel back to the tenant",
        ),
    ];
    all.push(uniform(priors));
    all.into_iter().flatten().collect()
}

fn statement(text: &str, verdict: Verdict, figure: String) -> Option<Statement> {
    Some(Statement { statement: text.into(), source: ESSAY.into(), verdict, figure })
}

impl Seen<'_> {
    fn named(&self, role: &str) -> Option<usize> {
        let (_, names) = ROLES.iter().find(|(r, _)| *r == role)?;
        names.iter().find_map(|n| self.deployments.iter().position(|d| d.name == *n))
    }

    fn of(&self, role: &str) -> Option<&DeploymentRisk> {
        self.deployments.get(self.named(role)?)
    }

    /// Probability that the first is smaller; whether they are equal; ratio of medians.
    fn pair(&self, a: &str, b: &str, figure: Figure) -> Option<(f64, bool)> {
        let p = self
            .pairs
            .iter()
            .find(|p| p.figure == figure && ((p.a == a && p.b == b) || (p.a == b && p.b == a)))?;
        Some((if p.a == a { p.probability } else { 1.0 - p.probability }, p.equal))
    }

    fn smaller(&self, a: &str, b: &str, figure: Figure, text: &str) -> Option<Statement> {
        let (a, b) = (self.of(a)?, self.of(b)?);
        let (p, equal) = self.pair(&a.name, &b.name, figure)?;
        let verdict = match p {
            _ if equal => Verdict::Contradicted,
            p if p >= 0.9 => Verdict::Holds,
            p if p <= 0.1 => Verdict::Contradicted,
            _ => Verdict::Undecided,
        };
        let of = |d: &DeploymentRisk| match figure {
            Figure::TenantVap => d.tenant,
            Figure::TotalVap => d.vap,
            Figure::Hap => d.hap,
        };
        let equal = if equal { ", equal" } else { "" };
        statement(
            text,
            verdict,
            format!(
                "{} of {} smaller than of {} with probability {p:.2}{equal}; functions {} against {}",
                figure.as_str(),
                a.name,
                b.name,
                of(a).functions,
                of(b).functions
            ),
        )
    }

    fn no_hap(&self, role: &str) -> Option<Statement> {
        let d = self.of(role)?;
        let verdict = if d.hap.lambda.high > 0.0 { Verdict::Contradicted } else { Verdict::Holds };
        statement(
            "a physical machine of its own has no HAP: an air gap",
            verdict,
            format!("{} functions of shared layers in {}", d.hap.functions, d.name),
        )
    }

    fn equal_totals(&self) -> Option<Statement> {
        let (physical, container) = (self.of("physical")?, self.of("container")?);
        let ratio = container.vap.functions as f64 / physical.vap.functions as f64;
        let risk = container.vap.lambda.median / physical.vap.lambda.median;
        let near = |r: f64| (r - 1.0).abs() <= ABOUT;
        let verdict =
            if near(ratio) && near(risk) { Verdict::Holds } else { Verdict::Contradicted };
        statement(
            "a bare-metal container's total VAP equals the physical one",
            verdict,
            format!("{ratio:.2} times the functions, {risk:.2} times the expected defects"),
        )
    }

    fn half_of_a_container(&self) -> Option<Statement> {
        let d = self.of("container")?;
        let kernel = d.layer(Layer::HostKernel)?;
        let share = kernel.risk.lambda.median / d.vap.lambda.median;
        let functions = kernel.risk.functions as f64 / d.vap.functions as f64;
        let near = |s: f64| (s - 0.5).abs() <= ABOUT;
        let verdict = if near(share) { Verdict::Holds } else { Verdict::Contradicted };
        statement(
            "the kernel is about half of all vulnerabilities, so that about half of a container's VAP is the tenant's",
            verdict,
            format!(
                "the kernel is {:.0} % of the functions of {} and {:.0} % of its expected defects (medians)",
                functions * 100.0,
                d.name,
                share * 100.0
            ),
        )
    }

    fn ten_times(&self) -> Option<Statement> {
        let (c, h) = (self.of("container")?, self.of("hypervisor")?);
        let pair = self.pairs.iter().find(|p| {
            p.figure == Figure::Hap
                && [&p.a, &p.b].contains(&&c.name)
                && [&p.a, &p.b].contains(&&h.name)
        })?;
        let ratio = pair.ratio?;
        let (low, high) = if pair.a == c.name {
            (ratio.low, ratio.high)
        } else {
            (1.0 / ratio.high, 1.0 / ratio.low)
        };
        let ten = 10.0;
        let verdict = match (low, high) {
            (l, h) if l >= ten * (1.0 - ABOUT) && h <= ten * (1.0 + ABOUT) => Verdict::Holds,
            (l, h) if l > ten || h < ten => Verdict::Contradicted,
            _ => Verdict::Undecided,
        };
        let widths = |role| {
            let subject = self.named(role).and_then(|i| self.subjects.get(i));
            subject.map(|s| widths(&s.boundaries)).unwrap_or_default()
        };
        statement(
            "with about 300 calls against about 30 hypercalls a container's HAP is ten times the hypervisor's",
            verdict,
            format!(
                "{low:.1} to {high:.1} times ({} against {} functions of shared layers); interfaces {} against {}",
                c.hap.functions,
                h.hap.functions,
                widths("container"),
                widths("hypervisor")
            ),
        )
    }

    fn shrink_or_grow(&self) -> Option<Statement> {
        let (s, c) = (self.of("sandbox")?, self.of("container")?);
        let (p, _) = self.pair(&s.name, &c.name, Figure::TotalVap)?;
        let which = match p {
            p if p >= 0.9 => "it shrinks here",
            p if p <= 0.1 => "it grows here",
            _ => "undecided here",
        };
        statement(
            "a sandbox's total VAP may shrink or grow: the emulation's defects against the original's",
            Verdict::Holds,
            format!(
                "{which}: smaller than {}'s with probability {p:.2}; functions {} against {}",
                c.name, s.vap.functions, c.vap.functions
            ),
        )
    }
}

/// Widths of the interfaces into shared or emulating layers.
fn widths(boundaries: &[Boundary]) -> String {
    let shown = |b: &Boundary| {
        let n = |w: Option<u32>| w.map_or("?".into(), |w| w.to_string());
        format!("{} {} of {}", b.name, n(b.exercised), n(b.permitted))
    };
    let into_host = |b: &&Boundary| matches!(b.to, Layer::HostKernel | Layer::Vmm);
    let shown: Vec<String> = boundaries.iter().filter(into_host).map(shown).collect();
    if shown.is_empty() { "unknown".into() } else { shown.join(", ") }
}

/// Uniform density against the histories.
fn uniform(priors: &Priors) -> Option<Statement> {
    let mut rates: Vec<(f64, &str)> = priors
        .classes
        .iter()
        .filter_map(|c| {
            let h = c.history.as_ref().filter(|h| !h.selective)?;
            Some((h.cves as f64 / (h.lines / 1e6), c.name.as_str()))
        })
        .collect();
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((low, calm), (high, busy)) = (rates.first()?, rates.last()?);
    statement(
        "size stands for risk: every line is as risky as every other",
        Verdict::Contradicted,
        format!("{low:.0} identifiers in a million lines of {calm}, {high:.0} of {busy}"),
    )
}
