//! Decisions for a tenant and for a provider, each with the figure and the assumption that it rests on.
//!
//! Nothing new is computed about a deployment here: rows are read off an assessment, and what-ifs are
//! assessments of changed deployments with the same random numbers.

use altaz_profile::Owner;
use altaz_profile::results::risk::{
    ADVICE_SCHEMA, Advice, AdviceResult, DeploymentRisk, Figure, FindingKind, Interval, RiskResult,
};

use crate::contract::Data;
use crate::risk::assumption::Fixed;
use crate::risk::{Priors, Settings, Subject, assess_risk};
use crate::scenario::{Change, apply};

const YEAR: f64 = 365.25;

/// The decision table of these deployments.
pub fn advise(
    subjects: &[Subject],
    result: &RiskResult,
    priors: &Priors,
    settings: &Settings,
) -> AdviceResult {
    let mut rows = Vec::new();
    rows.extend(smallest(
        result,
        Figure::TenantVap,
        Owner::Tenant,
        "Which deployment leaves the least to me?",
    ));
    rows.extend(smallest(
        result,
        Figure::TotalVap,
        Owner::Tenant,
        "Which has the least to find an exploit in, whoever must fix it?",
    ));
    rows.extend(subjects.iter().filter_map(|s| hand_over(s, priors)));
    rows.extend(subjects.iter().zip(&result.deployments).filter_map(|(s, d)| remedies(s, d)));
    rows.extend(result.deployments.iter().flat_map(cannot_fix));
    rows.extend(smallest(
        result,
        Figure::Hap,
        Owner::Provider,
        "Which deployment endangers the host and other tenants least?",
    ));
    let quick = Settings { sobol_draws: 0, ..*settings };
    rows.extend(subjects.iter().filter_map(|s| levers(s, priors, &quick)));
    rows.extend(subjects.iter().filter_map(|s| nesting(s, priors, &quick)));
    AdviceResult {
        schema: ADVICE_SCHEMA.into(),
        rows,
        seed: settings.seed,
        warnings: result.warnings.clone(),
    }
}

fn of(d: &DeploymentRisk, figure: Figure) -> Interval {
    match figure {
        Figure::TenantVap => d.tenant.exposure,
        Figure::TotalVap => d.vap.exposure,
        Figure::Hap => d.hap.exposure,
    }
}

fn shown(i: &Interval) -> String {
    format!("{:.2} ({:.2}–{:.2})", i.median, i.low, i.high)
}

/// The deployment with the smallest figure, and what decides between it and the next.
fn smallest(result: &RiskResult, figure: Figure, role: Owner, question: &str) -> Option<Advice> {
    let mut order: Vec<&DeploymentRisk> = result.deployments.iter().collect();
    order.sort_by(|a, b| {
        of(a, figure).median.total_cmp(&of(b, figure).median).then_with(|| a.name.cmp(&b.name))
    });
    let [first, second, ..] = order.as_slice() else { return None };
    let same = |a: &str, b: &str| {
        (a == first.name && b == second.name) || (b == first.name && a == second.name)
    };
    let pair = result.pairs.iter().find(|p| p.figure == figure && same(&p.a, &p.b))?;
    let probability = if pair.a == first.name { pair.probability } else { 1.0 - pair.probability };
    let decided = pair.smaller.is_some();
    let inputs = result
        .sensitivity
        .iter()
        .find(|s| s.figure == figure && same(&s.a, &s.b))
        .map(|s| s.inputs.as_slice())
        .unwrap_or_default();
    let group = inputs.iter().find(|i| i.sobol_total.is_some());
    let flips: Vec<&str> =
        inputs.iter().filter(|i| i.flips).map(|i| i.input.as_str()).take(2).collect();
    let deciding = match (group, flips.is_empty()) {
        (None, _) if pair.equal => "nothing: both are equal under every assumption".into(),
        (None, _) => "nothing that is assumed: one of them is empty".into(),
        (Some(g), true) => format!(
            "{} ({:.0} % of the doubt); no single assumption turns it over within its range",
            g.input,
            g.sobol_total.unwrap_or(0.0) * 100.0
        ),
        (Some(g), false) => format!(
            "{} ({:.0} % of the doubt); turned over by {}",
            g.input,
            g.sobol_total.unwrap_or(0.0) * 100.0,
            flips.join(", ")
        ),
    };
    let answer = match (decided, pair.equal) {
        (true, _) => first.name.clone(),
        (_, true) => format!("{} and {} alike", first.name, second.name),
        _ => format!("undecided between {} and {}", first.name, second.name),
    };
    Some(Advice {
        role,
        question: question.into(),
        answer,
        figure: format!(
            "{} exposure {} against {}, smaller with probability {probability:.2}",
            figure.as_str(),
            shown(&of(first, figure)),
            shown(&of(second, figure))
        ),
        deciding,
        decided: decided || pair.equal,
    })
}

/// Handing the kernel to the provider pays as long as it patches within a window that follows in closed
/// form from equal exposure: `W = W_t + (1/s_t − 1/s_p) · L / w`.
fn hand_over(subject: &Subject, priors: &Priors) -> Option<Advice> {
    let kernel = subject
        .layers
        .iter()
        .find(|l| l.info.shared && l.terms.owner == Some(Owner::Provider) && !l.items.is_empty())?;
    let tenants = subject.layers.iter().find(|l| l.terms.owner == Some(Owner::Tenant))?;
    let median = |fixed| priors.distribution(fixed).at(0.0);
    let mine = tenants.terms.window_days.unwrap_or_else(|| median(Fixed::WindowUnagreed));
    let theirs = kernel.terms.window_days.unwrap_or_else(|| median(Fixed::WindowUnagreed));
    let even = mine
        + (1.0 / tenants.terms.search - 1.0 / kernel.terms.search) * median(Fixed::Lifetime) * YEAR
            / median(Fixed::KnownWeight);
    let pays = theirs < even;
    let name = kernel.info.name;
    Some(Advice {
        role: Owner::Tenant,
        question: format!("{}: does it pay to leave {name} to the provider?", subject.name),
        answer: if pays {
            "yes, under this contract"
        } else {
            "no: it moves the work, not the risk"
        }
        .into(),
        figure: format!(
            "the provider patches within {theirs:.0} days at {} times the ordinary search, I within {mine:.0} at {}",
            kernel.terms.search, tenants.terms.search
        ),
        deciding: if even > 0.0 {
            format!(
                "the provider's patch window: it turns over at {even:.0} days (medians of the other assumptions)"
            )
        } else {
            "the provider's search: at this diligence no window makes up for it".into()
        },
        decided: true,
    })
}

/// Whether what the contract pays covers a breach of containment.
fn remedies(subject: &Subject, d: &DeploymentRisk) -> Option<Advice> {
    let c = &subject.contract;
    let question =
        format!("{}: are contractual remedies enough for a breach of containment?", d.name);
    if d.hap.functions == 0 {
        return Some(Advice {
            role: Owner::Tenant,
            question,
            answer: "not needed: nothing is shared".into(),
            figure: "HAP 0".into(),
            deciding: "that the machine serves no other tenant".into(),
            decided: true,
        });
    }
    let enough = c.remedies_are_enough();
    let falls = d.paths.iter().map(|p| &p.stated).max_by(|a, b| a.median.total_cmp(&b.median));
    let why = if !c.obligations.is_empty() {
        format!(
            "obligations from outside ({}): money does not discharge them",
            c.obligations.join(", ")
        )
    } else if c.data >= Data::Regulated {
        "the data is regulated: a breach must be answered for, whatever is paid".into()
    } else if enough {
        format!(
            "{} data and {}; an obligation from outside turns it over",
            c.data.as_str(),
            c.remedy.as_str()
        )
    } else {
        format!(
            "the remedy is {}, and the data is {}: full damages, or public data, turn it over",
            c.remedy.as_str(),
            c.data.as_str()
        )
    };
    Some(Advice {
        role: Owner::Tenant,
        question,
        answer: if enough { "yes" } else { "no: look at the HAP yourself" }.into(),
        figure: falls.map_or_else(
            || format!("HAP exposure {}", shown(&d.hap.exposure)),
            |i| format!("the likeliest way out falls within a year with probability {}", shown(i)),
        ),
        deciding: why,
        decided: true,
    })
}

/// Layers that I must fix and cannot.
fn cannot_fix(d: &DeploymentRisk) -> Vec<Advice> {
    d.findings
        .iter()
        .filter(|f| matches!(f.kind, FindingKind::CannotFix | FindingKind::Orphaned))
        .filter_map(|f| {
            let layer = d.layer(f.layer)?;
            Some(Advice {
                role: Owner::Tenant,
                question: format!("{}: who fixes {}?", d.name, f.layer),
                answer: format!("{}; have it written into the contract", f.what),
                figure: format!("exposure {}", shown(&layer.risk.exposure)),
                deciding: "the contract, not the measurement".into(),
                decided: true,
            })
        })
        .collect()
}

/// HAP exposure of a deployment with a change over that without.
fn effect(
    subject: &Subject,
    changes: &[Change],
    priors: &Priors,
    settings: &Settings,
) -> Option<Interval> {
    let mut after = subject.clone();
    after.name.push_str(", changed");
    for change in changes {
        apply(&mut after, change).ok()?;
    }
    let result = assess_risk("", &[after, subject.clone()], priors, settings);
    result.pairs.iter().find(|p| p.figure == Figure::Hap)?.ratio
}

/// Which lever lowers a provider's HAP most.
fn levers(subject: &Subject, priors: &Priors, settings: &Settings) -> Option<Advice> {
    let shared: Vec<_> =
        subject.layers.iter().filter(|l| l.info.shared && !l.items.is_empty()).collect();
    let layer = shared.first()?.info.name;
    let days = shared.first()?.terms.window_days;
    let search = shared.first()?.terms.search;
    let mut levers: Vec<(String, Vec<Change>)> = vec![(
        format!("look for defects twice as actively in {layer}"),
        vec![Change::Search { layer, times: search * 2.0 }],
    )];
    if let Some(days) = days {
        let change = Change::Window { layer: Some(layer), owner: None, days: days / 2.0 };
        levers.push((
            format!("patch {layer} within {} days instead of {days}", days / 2.0),
            vec![change],
        ));
    }
    for b in subject.boundaries.iter().filter(|b| b.to == layer) {
        if let (Some(permitted), Some(exercised)) = (b.permitted, b.exercised)
            && exercised > 0
            && exercised < permitted
        {
            let change = Change::Narrow { boundary: b.name.clone(), permitted: exercised };
            levers.push((
                format!(
                    "permit the {exercised} entry points of {} in use instead of {permitted}",
                    b.name
                ),
                vec![change],
            ));
        }
    }
    let mut found: Vec<(Interval, String)> = levers
        .into_iter()
        .filter_map(|(what, changes)| Some((effect(subject, &changes, priors, settings)?, what)))
        .collect();
    found.sort_by(|a, b| a.0.median.total_cmp(&b.0.median).then_with(|| a.1.cmp(&b.1)));
    let (best, what) = found.first()?;
    let others: Vec<String> =
        found.iter().skip(1).map(|(i, what)| format!("{what}: {}", shown(i))).collect();
    let next = found.get(1);
    Some(Advice {
        role: Owner::Provider,
        question: format!("{}: what lowers my HAP most?", subject.name),
        answer: what.clone(),
        figure: format!("to {} of what it is; {}", shown(best), others.join("; ")),
        deciding: if what.starts_with("permit") {
            "interface-exponent: how much code goes with each entry point".into()
        } else {
            "known-weight and lifetime: how much of the exposure is known and unpatched".into()
        },
        decided: next.is_none_or(|(next, _)| best.high <= next.low),
    })
}

/// Whether a provider gains by putting its containers into machines of the tenants' own.
fn nesting(subject: &Subject, priors: &Priors, settings: &Settings) -> Option<Advice> {
    subject.layers.iter().find(|l| l.info.shared && !l.items.is_empty())?;
    let ratio = effect(subject, &[Change::nest()], priors, settings)?;
    let decided = ratio.high < 1.0 || ratio.low > 1.0;
    Some(Advice {
        role: Owner::Provider,
        question: format!("{}: do I gain by nesting it in a virtual machine?", subject.name),
        answer: match (ratio.high < 1.0, ratio.low > 1.0) {
            (true, _) => "yes, and the kernel above it is the tenant's again".into(),
            (_, true) => "no".into(),
            _ => "undecided".into(),
        },
        figure: format!("HAP exposure becomes {} of what it is", shown(&ratio)),
        deciding:
            "share of the host kernel's code that is still traversed (0.47, measured in the demo)"
                .into(),
        decided,
    })
}
