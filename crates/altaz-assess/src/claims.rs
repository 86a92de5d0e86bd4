//! Claims about where a service should run, put to the test with measured profiles.
//!
//! The claims are those of James Bottomley's essay "Containers and Cloud Security" (2018). Each is
//! turned into figures of named deployments; what the figures say is the verdict, for or against. Two
//! figures are called equal when their intervals over repeats overlap or when they differ by no more
//! than [`EQUAL`]. A claim whose deployments were not measured, or that is about something that no
//! profile holds, cannot be tested here, and is listed with the reason.

use std::fmt;

use altaz_profile::results::DeploymentResult;
use altaz_profile::{Boundary, Layer, Owner};

/// Relative difference up to which two figures count as equal.
pub const EQUAL: f64 = 0.10;
/// Shares that count as "about half".
pub const HALF: (f64, f64) = (0.40, 0.60);
/// Ratios that count as "ten times".
pub const TEN: (f64, f64) = (5.0, 20.0);

/// A deployment with the figures of each of its recordings, the first one first.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// One recording each.
    pub runs: Vec<DeploymentResult>,
}

/// What the figures say about a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// They agree with it.
    Holds,
    /// They contradict it.
    Fails,
    /// They agree or contradict, depending on this.
    Depends(String),
    /// They say nothing about it, for this reason.
    Untestable(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::Fails => f.write_str("fails"),
            Self::Depends(on) => write!(f, "depends on {on}"),
            Self::Untestable(why) => write!(f, "cannot be tested here: {why}"),
        }
    }
}

/// A figure of a deployment over its recordings.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is and of which deployment.
    pub what: String,
    /// Unit.
    pub unit: &'static str,
    /// Of each recording.
    pub values: Vec<f64>,
}

impl Figure {
    /// Mean over the recordings; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        (!self.values.is_empty())
            .then(|| self.values.iter().sum::<f64>() / self.values.len() as f64)
    }

    /// Smallest and largest of several recordings; `None` for one: it has no interval.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let low = self.values.iter().copied().min_by(f64::total_cmp)?;
        let high = self.values.iter().copied().max_by(f64::total_cmp)?;
        (self.values.len() > 1).then_some((low, high))
    }
}

/// A claim with what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The claim.
    pub claim: &'static str,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What that says.
    pub verdict: Verdict,
}

type Of = fn(&DeploymentResult) -> Option<f64>;

fn vap(d: &DeploymentResult) -> Option<f64> {
    d.vap.map(|v| v.functions as f64)
}

fn hap(d: &DeploymentResult) -> Option<f64> {
    d.hap.map(|h| h.exercised_functions as f64)
}

fn share(d: &DeploymentResult) -> Option<f64> {
    d.vap.and_then(|v| v.tenant_share)
}

fn share_covered(d: &DeploymentResult) -> Option<f64> {
    d.vap.and_then(|v| v.tenant_share_covered)
}

/// Sum over interfaces into a shared layer, of which each must be known.
fn width(d: &DeploymentResult, wanted: &[&str], of: fn(&Boundary) -> Option<u32>) -> Option<f64> {
    let shared = |layer| d.layers.iter().any(|l| l.name == layer && l.shared);
    let mut into = d
        .boundaries
        .iter()
        .filter(|b| shared(b.to) && b.from != Layer::Vmm && wanted.contains(&b.name.as_str()))
        .peekable();
    into.peek()?;
    into.map(of).try_fold(0.0, |sum, n| Some(sum + f64::from(n?)))
}

fn calls_permitted(d: &DeploymentResult) -> Option<f64> {
    width(d, &["syscall"], |b| b.permitted)
}

fn calls_exercised(d: &DeploymentResult) -> Option<f64> {
    width(d, &["syscall"], |b| b.exercised)
}

fn hypercalls_permitted(d: &DeploymentResult) -> Option<f64> {
    width(d, &["hypercall"], |b| b.permitted)
}

fn exits_permitted(d: &DeploymentResult) -> Option<f64> {
    width(d, &["vm-exit"], |b| b.permitted)
}

fn exits_exercised(d: &DeploymentResult) -> Option<f64> {
    width(d, &["vm-exit"], |b| b.exercised)
}

/// What was measured, to be asked by name.
struct Matrix<'a>(&'a [Measured]);

impl Matrix<'_> {
    fn get(&self, name: &str) -> Option<&Measured> {
        self.0.iter().find(|m| m.name == name && m.runs.iter().any(|r| r.available))
    }

    /// A figure of a deployment; the reason why there is none otherwise.
    fn figure(&self, name: &str, what: &str, unit: &'static str, of: Of) -> Result<Figure, String> {
        let measured = self.get(name).ok_or_else(|| format!("`{name}` was not measured"))?;
        let values: Vec<f64> = measured.runs.iter().filter_map(of).collect();
        if values.is_empty() {
            return Err(format!("of `{name}` {what} is not known"));
        }
        Ok(Figure { what: format!("{what}, {name}"), unit, values })
    }

    /// A number of functions of those of these deployments of which it is known.
    fn figures(&self, names: &[&str], what: &str, of: Of) -> Vec<Figure> {
        names.iter().filter_map(|n| self.figure(n, what, FUNCTIONS, of).ok()).collect()
    }

    fn first(&self, names: &[&'static str]) -> Result<&'static str, String> {
        names
            .iter()
            .copied()
            .find(|n| self.get(n).is_some())
            .ok_or_else(|| format!("none of {} was measured", names.join(", ")))
    }
}

const FUNCTIONS: &str = "functions";
const SHARE: &str = "share";
const ENTRIES: &str = "entry points";

/// How two figures compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Less,
    Equal,
    More,
}

fn order(a: &Figure, b: &Figure) -> Order {
    let (x, y) = (a.mean().unwrap_or(0.0), b.mean().unwrap_or(0.0));
    let overlap = match (a.interval(), b.interval()) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    };
    if overlap || (x - y).abs() <= EQUAL * x.abs().max(y.abs()) {
        Order::Equal
    } else if x < y {
        Order::Less
    } else {
        Order::More
    }
}

fn verdict_of(good: bool) -> Verdict {
    if good { Verdict::Holds } else { Verdict::Fails }
}

/// Tests every claim with what was measured.
pub fn claims(measured: &[Measured]) -> Vec<Claim> {
    let m = Matrix(measured);
    let tests: [(&'static str, Test); 12] = [
        ("A container's total VAP equals that of a physical machine.", container_total),
        ("The tenant's part of a container's VAP is about half of it.", half),
        ("A hypervisor's total VAP is larger than a physical machine's.", hypervisor_total),
        (
            "A hypervisor's HAP is narrower than a container's: 30 entry points against 300, ten times.",
            narrower,
        ),
        ("A shared login has the worst HAP of all.", login_worst),
        ("A hardened login is no worse than a container.", hardened),
        ("Guards reduce what can be attacked.", guards),
        ("A sandbox has a smaller HAP than a container.", sandbox_hap),
        ("A sandbox's VAP may be smaller or larger than a container's.", sandbox_vap),
        ("A sandbox moves ownership, quietly.", sandbox_moves),
        ("Nesting hands the kernel back to the tenant, at the hypervisor's HAP.", nesting),
        ("A defect of a guest's own copy of the device model is not horizontal by itself.", vmm),
    ];
    let mut all: Vec<Claim> = tests
        .into_iter()
        .map(|(claim, test)| match test(&m) {
            Ok((figures, verdict)) => Claim { claim, figures, verdict },
            Err(why) => Claim { claim, figures: Vec::new(), verdict: Verdict::Untestable(why) },
        })
        .collect();
    let outside = [
        (
            "A physical machine has no HAP: an air gap.",
            "it is how the deployment is defined (nothing is shared), not something measured; attacks \
             from the hardware are outside of every profile",
        ),
        (
            "The kernel accounts for about half of all vulnerabilities.",
            "a profile counts traversed code, not vulnerabilities, and the essay names no source",
        ),
        (
            "Whoever owns a part is motivated to find and fix its defects.",
            "it is about organisations; `altaz` shows who owns what, not how diligent they are",
        ),
        ("Contracts are the remedy for a breach of containment.", "no profile holds a contract"),
    ];
    all.extend(outside.map(|(claim, why)| Claim {
        claim,
        figures: Vec::new(),
        verdict: Verdict::Untestable(why.into()),
    }));
    all
}

type Answer = Result<(Vec<Figure>, Verdict), String>;
type Test = fn(&Matrix<'_>) -> Answer;

fn container_total(m: &Matrix<'_>) -> Answer {
    let physical = m.figure("process", "total VAP", FUNCTIONS, vap)?;
    let container = m.figure("runc", "total VAP", FUNCTIONS, vap)?;
    let verdict = verdict_of(order(&container, &physical) == Order::Equal);
    Ok((vec![physical, container], verdict))
}

fn half(m: &Matrix<'_>) -> Answer {
    let about = |f: &Figure| f.mean().is_some_and(|x| (HALF.0..=HALF.1).contains(&x));
    let by_functions = m.figure("runc", "tenant's share by functions", SHARE, share)?;
    let Ok(by_bytes) = m.figure("runc", "tenant's share by executed bytes", SHARE, share_covered)
    else {
        let verdict = verdict_of(about(&by_functions));
        return Ok((vec![by_functions], verdict));
    };
    let verdict = match (about(&by_functions), about(&by_bytes)) {
        (true, true) => Verdict::Holds,
        (false, false) => Verdict::Fails,
        (true, false) => Verdict::Depends("the unit: by functions it holds, by bytes not".into()),
        (false, true) => Verdict::Depends("the unit: by bytes it holds, by functions not".into()),
    };
    Ok((vec![by_functions, by_bytes], verdict))
}

/// Holds when all of them stand so to the other, fails when none does, and else depends on this.
fn all_are(figures: &[Figure], how: Order, to: &Figure, on: &str) -> Verdict {
    match figures.iter().filter(|f| order(f, to) == how).count() {
        n if n == figures.len() => Verdict::Holds,
        0 => Verdict::Fails,
        _ => Verdict::Depends(on.into()),
    }
}

const GUESTS: [&str; 2] = ["qemu", "qemu-microvm"];

fn hypervisor_total(m: &Matrix<'_>) -> Answer {
    let physical = m.figure("process", "total VAP", FUNCTIONS, vap)?;
    m.first(&GUESTS)?;
    let guests = m.figures(&GUESTS, "total VAP", vap);
    let verdict =
        all_are(&guests, Order::More, &physical, "the machine that the hypervisor emulates");
    Ok(([vec![physical], guests].concat(), verdict))
}

fn narrower(m: &Matrix<'_>) -> Answer {
    let guest = m.first(&["qemu-microvm", "qemu"])?;
    let mut figures = vec![
        m.figure("runc", "HAP exercised", FUNCTIONS, hap)?,
        m.figure(guest, "HAP exercised", FUNCTIONS, hap)?,
    ];
    let mut ratios = Vec::new();
    let pairs: [(&str, Of, &str, Of); 4] = [
        ("system calls permitted", calls_permitted, "hypercalls permitted", hypercalls_permitted),
        ("system calls permitted", calls_permitted, "exit reasons permitted", exits_permitted),
        ("system calls exercised", calls_exercised, "exit reasons exercised", exits_exercised),
        ("HAP exercised", hap, "HAP exercised", hap),
    ];
    for (i, (a, of_a, b, of_b)) in pairs.into_iter().enumerate() {
        let unit = if i == 3 { FUNCTIONS } else { ENTRIES };
        let (Ok(wide), Ok(narrow)) =
            (m.figure("runc", a, unit, of_a), m.figure(guest, b, unit, of_b))
        else {
            continue;
        };
        if let Some((x, y)) = wide.mean().zip(narrow.mean()).filter(|(_, y)| *y > 0.0) {
            ratios.push((format!("{a} to {b}"), x / y));
        }
        if i < 3 {
            figures.extend(
                [wide, narrow].into_iter().filter(|f| !figures.contains(f)).collect::<Vec<_>>(),
            );
        }
    }
    if ratios.is_empty() {
        return Err("no width is known on both sides".into());
    }
    let ten = ratios.iter().filter(|(_, r)| (TEN.0..=TEN.1).contains(r)).count();
    let narrow = ratios.iter().filter(|(_, r)| *r > 1.0 + EQUAL).count();
    let said = ratios.iter().map(|(what, r)| format!("{what} {r:.1} times")).collect::<Vec<_>>();
    let said = said.join("; ");
    let verdict = match (ten, narrow, ratios.len()) {
        (t, _, all) if t == all => Verdict::Holds,
        (_, 0, _) => Verdict::Fails,
        _ => Verdict::Depends(format!("what is counted: {said}")),
    };
    Ok((figures, verdict))
}

fn login_worst(m: &Matrix<'_>) -> Answer {
    let login = m.figure("login", "HAP exercised", FUNCTIONS, hap)?;
    let others: Vec<Figure> =
        m.0.iter()
            .filter(|d| !["login", "process", "physical"].contains(&d.name.as_str()))
            .filter_map(|d| m.figure(&d.name, "HAP exercised", FUNCTIONS, hap).ok())
            .collect();
    if others.is_empty() {
        return Err("nothing but `login` was measured".into());
    }
    let worse: Vec<String> = others
        .iter()
        .filter(|o| order(o, &login) == Order::More)
        .map(|o| o.what.rsplit(", ").next().unwrap_or(&o.what).to_owned())
        .collect();
    let equal = others.iter().any(|o| order(o, &login) == Order::Equal);
    let verdict = if !worse.is_empty() {
        Verdict::Fails
    } else if equal {
        Verdict::Depends(
            "what is counted: none is worse by what this load exercised, but not all are better; what \
             a login may call and reach beyond it is wider"
                .into(),
        )
    } else {
        Verdict::Holds
    };
    Ok(([vec![login], others].concat(), verdict))
}

fn hardened(m: &Matrix<'_>) -> Answer {
    let pair = |what, unit, of: Of| -> Result<[Figure; 2], String> {
        Ok([m.figure("login-hardened", what, unit, of)?, m.figure("runc", what, unit, of)?])
    };
    let haps = pair("HAP exercised", FUNCTIONS, hap)?;
    let no_worse = |[a, b]: &[Figure; 2]| order(a, b) != Order::More;
    let Ok(widths) = pair("system calls permitted", ENTRIES, calls_permitted) else {
        let verdict = verdict_of(no_worse(&haps));
        return Ok((haps.into(), verdict));
    };
    let verdict = match (no_worse(&haps), no_worse(&widths)) {
        (true, true) => Verdict::Holds,
        (false, false) => Verdict::Fails,
        (true, false) => Verdict::Depends(
            "what is counted: exercised code is no more, but more system calls are permitted"
                .into(),
        ),
        (false, true) => Verdict::Depends(
            "what is counted: no more system calls are permitted, but more code is exercised"
                .into(),
        ),
    };
    Ok((haps.into_iter().chain(widths).collect(), verdict))
}

fn guards(m: &Matrix<'_>) -> Answer {
    // A filter: the same service with and without it.
    let (open, guarded) = if m.get("runc-guarded").is_some() {
        ("runc", "runc-guarded")
    } else {
        ("process", "runc")
    };
    // A machine of one's own has no shared layer, but the same interface to its kernel.
    let to_kernel: Of = |d| {
        let b = d.boundaries.iter().find(|b| b.name == "syscall" && b.to == Layer::HostKernel)?;
        b.permitted.map(f64::from)
    };
    let kernel: Of = |d| d.layer(Layer::HostKernel).map(|l| l.functions as f64);
    let widths = [
        m.figure(open, "system calls permitted", ENTRIES, to_kernel)?,
        m.figure(guarded, "system calls permitted", ENTRIES, to_kernel)?,
    ];
    let code = [
        m.figure(open, "host kernel exercised", FUNCTIONS, kernel)?,
        m.figure(guarded, "host kernel exercised", FUNCTIONS, kernel)?,
    ];
    let less = |[a, b]: &[Figure; 2]| order(b, a) == Order::Less;
    let verdict = match (less(&widths), less(&code)) {
        (true, true) => Verdict::Holds,
        (true, false) => Verdict::Depends(
            "what is counted: a filter narrows what may be called, and leaves what this load \
             traverses as it is"
                .into(),
        ),
        (false, true) => Verdict::Depends("what is counted: less code, the same width".into()),
        (false, false) => Verdict::Fails,
    };
    Ok((widths.into_iter().chain(code).collect(), verdict))
}

const SANDBOXES: [&str; 2] = ["runsc-systrap", "runsc-ptrace"];

fn sandbox_hap(m: &Matrix<'_>) -> Answer {
    m.first(&SANDBOXES)?;
    let container = m.figure("runc", "HAP exercised", FUNCTIONS, hap)?;
    let boxes = m.figures(&SANDBOXES, "HAP exercised", hap);
    let verdict = all_are(&boxes, Order::Less, &container, "the sandbox's platform");
    Ok(([vec![container], boxes].concat(), verdict))
}

fn sandbox_vap(m: &Matrix<'_>) -> Answer {
    let name = m.first(&SANDBOXES)?;
    let container = m.figure("runc", "total VAP", FUNCTIONS, vap)?;
    let sandbox = m.figure(name, "total VAP", FUNCTIONS, vap)?;
    let how = match order(&sandbox, &container) {
        Order::Less => "here it is smaller",
        Order::Equal => "here it is the same",
        Order::More => "here it is larger",
    };
    let on = format!("the sandbox, as the claim says; {how}");
    Ok((vec![container, sandbox], Verdict::Depends(on)))
}

fn moved(of: &DeploymentResult, layer: Layer) -> Option<f64> {
    of.layer(layer).filter(|l| l.ownership_moved).map(|l| l.functions as f64)
}

fn sandbox_moves(m: &Matrix<'_>) -> Answer {
    let name = m.first(&SANDBOXES)?;
    let sentry = m.figure(name, "sentry, with ownership moved", FUNCTIONS, |d| {
        Some(moved(d, Layer::SandboxKernel).unwrap_or(0.0))
    })?;
    let verdict = verdict_of(sentry.mean().is_some_and(|n| n > 0.0));
    Ok((vec![sentry], verdict))
}

fn nesting(m: &Matrix<'_>) -> Answer {
    let nested = "runc-in-qemu";
    let kernel =
        m.figure(nested, "guest kernel, the tenant's, with ownership moved", FUNCTIONS, |d| {
            let of_tenant = d.layer(Layer::GuestKernel).is_some_and(|l| l.owner == Owner::Tenant);
            Some(moved(d, Layer::GuestKernel).filter(|_| of_tenant).unwrap_or(0.0))
        })?;
    let guest = m.first(&["qemu-microvm", "qemu"])?;
    let haps = [
        m.figure(nested, "HAP exercised", FUNCTIONS, hap)?,
        m.figure(guest, "HAP exercised", FUNCTIONS, hap)?,
    ];
    let back = kernel.mean().is_some_and(|n| n > 0.0);
    let same = order(&haps[0], &haps[1]) == Order::Equal;
    let verdict = match (back, same) {
        (true, true) => Verdict::Holds,
        (false, _) => Verdict::Fails,
        (true, false) => Verdict::Depends(
            "which half is meant: the kernel is the tenant's again, but the HAP is not the \
             hypervisor's"
                .into(),
        ),
    };
    Ok(([vec![kernel], haps.to_vec()].concat(), verdict))
}

fn vmm(m: &Matrix<'_>) -> Answer {
    let guest = m.first(&GUESTS)?;
    let read = m
        .get(guest)
        .is_some_and(|d| d.runs.iter().any(|r| r.posture.iter().any(|p| p.role == "vmm")));
    if !read {
        return Err(format!(
            "what confines the monitor of `{guest}` is not in its profile, which an earlier altaz wrote"
        ));
    }
    let behind = |d: &DeploymentResult| {
        let path = d.escape_paths.iter().find(|p| p.barriers.iter().any(|b| b.to == Layer::Vmm))?;
        let at = path.barriers.iter().position(|b| b.to == Layer::Vmm)?;
        Some(path.barriers.iter().skip(at + 1).filter(|b| b.bars_tenant()).count() as f64)
    };
    let barriers = m.figure(guest, "barriers behind the device model", "barriers", behind)?;
    let verdict = if barriers.mean().is_some_and(|n| n > 0.0) {
        Verdict::Holds
    } else {
        Verdict::Depends(
            "how QEMU is run: as it runs here, as the superuser without a filter, whoever holds it \
             holds the host, and no barrier is left behind it"
                .into(),
        )
    };
    Ok((vec![barriers], verdict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::results::{Hap, Vap};

    fn run(name: &str, functions: u64, tenant: u64, shared: u64) -> DeploymentResult {
        DeploymentResult {
            available: true,
            vap: Some(Vap {
                functions,
                bytes: 0,
                covered_bytes: None,
                tenant_functions: tenant,
                provider_functions: functions - tenant,
                tenant_bytes: 0,
                provider_bytes: 0,
                tenant_covered_bytes: None,
                provider_covered_bytes: None,
                tenant_share: Some(tenant as f64 / functions as f64),
                tenant_share_covered: None,
                coverage: None,
                unseen: None,
            }),
            hap: Some(Hap {
                exercised_functions: shared,
                exercised_bytes: 0,
                exercised_covered_bytes: None,
                probed_functions: None,
                reachable_functions: None,
                coverage: None,
                unseen: None,
            }),
            ..DeploymentResult::unavailable(name, "")
        }
    }

    fn measured(name: &str, runs: &[(u64, u64, u64)]) -> Measured {
        let runs = runs.iter().map(|&(f, t, s)| run(name, f, t, s)).collect();
        Measured { name: name.into(), runs }
    }

    fn of(all: &[Claim], beginning: &str) -> Verdict {
        all.iter().find(|c| c.claim.starts_with(beginning)).unwrap().verdict.clone()
    }

    #[test]
    fn figures_decide_for_and_against() {
        let all = claims(&[
            measured("process", &[(5_000, 5_000, 0)]),
            measured("runc", &[(5_200, 4_000, 1_200)]),
            measured("qemu-microvm", &[(6_500, 5_000, 640)]),
            measured("login", &[(5_100, 3_900, 1_190)]),
        ]);
        assert_eq!(of(&all, "A container's total"), Verdict::Holds);
        assert_eq!(of(&all, "The tenant's part"), Verdict::Fails);
        assert_eq!(of(&all, "A hypervisor's total"), Verdict::Holds);
        assert!(
            matches!(of(&all, "A hypervisor's HAP"), Verdict::Depends(on) if on.contains("1.9 times"))
        );
        assert!(matches!(of(&all, "A shared login"), Verdict::Depends(_)));
    }

    #[test]
    fn a_larger_hap_than_the_login_s_is_a_verdict_against_the_claim() {
        let all = claims(&[measured("login", &[(9, 9, 100)]), measured("runc", &[(9, 5, 150)])]);
        assert_eq!(of(&all, "A shared login"), Verdict::Fails);
    }

    #[test]
    fn intervals_that_overlap_are_equal_and_one_recording_has_none() {
        let figure = |values: &[f64]| Figure {
            what: String::new(),
            unit: FUNCTIONS,
            values: values.to_vec(),
        };
        let (a, b) = (figure(&[100.0, 160.0]), figure(&[150.0, 210.0]));
        assert_eq!(order(&a, &b), Order::Equal);
        assert_eq!(order(&figure(&[130.0]), &figure(&[180.0])), Order::Less);
        assert_eq!(figure(&[1.0]).interval(), None);
        assert_eq!(a.interval(), Some((100.0, 160.0)));
    }

    #[test]
    fn what_was_not_measured_cannot_be_tested_and_says_what_is_missing() {
        let all = claims(&[]);
        assert!(all.iter().all(|c| matches!(c.verdict, Verdict::Untestable(_))));
        assert!(of(&all, "A hardened login").to_string().contains("`login-hardened`"));
    }
}
