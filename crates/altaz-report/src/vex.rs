//! Triage as VEX documents for other programs: OpenVEX and CycloneDX.
//!
//! A document speaks about products, not about deployments: what several profiles or layers say
//! about one vulnerability of one product is one statement with the most urgent state, and its notes
//! say where what was found. Nothing here is decided anew.

use std::collections::BTreeMap;

use altaz_profile::results::triage::{
    Finding, Justification, Product, State, TriageResult, VexStatus,
};
use serde_json::{Value, json};

/// What a document says about itself besides its statements.
#[derive(Debug, Clone, Copy)]
pub struct VexOptions<'a> {
    /// When it is issued, RFC 3339.
    pub timestamp: &'a str,
    /// Who issues it.
    pub author: &'a str,
    /// A text that is this document's alone (a digest of what it rests on), in hexadecimal; at least
    /// 32 digits.
    pub digest: &'a str,
}

/// Forms of OpenVEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenVexForm {
    /// 0.2.0: vulnerabilities and products are objects. What scanners read today.
    V020,
    /// The form before it, in which both are strings.
    Early,
}

/// A vulnerability of a product, all that the profiles say together.
struct Statement<'a> {
    product: &'a Product,
    worst: &'a Finding,
    notes: Vec<String>,
}

fn statements(result: &TriageResult) -> Vec<Statement<'_>> {
    let mut by_key: BTreeMap<(&str, &str), Statement<'_>> = BTreeMap::new();
    for profile in &result.profiles {
        for finding in &profile.findings {
            let Some(product) = profile.products.get(finding.product) else { continue };
            let layers: Vec<&str> = product.layers.iter().map(|l| l.as_str()).collect();
            let note = format!(
                "{} ({}): {}: {}",
                profile.deployment,
                if layers.is_empty() { "not traversed".to_owned() } else { layers.join(", ") },
                finding.state,
                finding.why
            );
            let key = (finding.id.as_str(), product.purl.as_str());
            let statement = by_key.entry(key).or_insert(Statement {
                product,
                worst: finding,
                notes: Vec::new(),
            });
            statement.notes.push(note);
            if urgency(finding) < urgency(statement.worst) {
                (statement.worst, statement.product) = (finding, product);
            }
        }
    }
    by_key.into_values().collect()
}

/// Affected first, then what is not decided; proofs only when they hold everywhere.
fn urgency(finding: &Finding) -> (u8, State) {
    let status = match finding.status {
        VexStatus::Affected => 0,
        VexStatus::UnderInvestigation => 1,
        VexStatus::Fixed => 2,
        VexStatus::NotAffected => 3,
    };
    (status, finding.state)
}

/// An OpenVEX document. `None` when there is nothing to state: the format has no empty documents.
pub fn openvex(
    result: &TriageResult,
    options: VexOptions<'_>,
    form: OpenVexForm,
) -> Option<String> {
    let statements = statements(result);
    if statements.is_empty() {
        return None;
    }
    let all: Vec<Value> = statements.iter().map(|s| openvex_statement(s, options, form)).collect();
    let mut document = json!({
        "@context": match form {
            OpenVexForm::V020 => "https://openvex.dev/ns/v0.2.0",
            OpenVexForm::Early => "https://openvex.dev/ns",
        },
        "@id": format!("https://openvex.dev/docs/altaz/vex-{}", options.digest),
        "author": options.author,
        "role": "Document Creator",
        "timestamp": options.timestamp,
        "version": 1,
        "tooling": format!("altaz {}", result.tool_version),
        "statements": all,
    });
    if form == OpenVexForm::Early {
        document["version"] = json!("1");
    }
    Some(pretty(&document))
}

fn openvex_statement(s: &Statement<'_>, options: VexOptions<'_>, form: OpenVexForm) -> Value {
    let finding = s.worst;
    let mut statement = match form {
        OpenVexForm::V020 => {
            let mut vulnerability = json!({ "name": finding.id });
            if !finding.aliases.is_empty() {
                vulnerability["aliases"] = json!(finding.aliases);
            }
            // The published schema and the specification's text spell the key of a CPE differently: the
            // purl alone is valid under both.
            json!({
                "vulnerability": vulnerability,
                "products": [{ "@id": s.product.purl, "identifiers": { "purl": s.product.purl } }],
            })
        }
        OpenVexForm::Early => {
            json!({ "vulnerability": finding.id, "products": [s.product.purl] })
        }
    };
    // Optional by the specification, and missed by a reader that expects it.
    statement["timestamp"] = json!(options.timestamp);
    statement["status"] = json!(finding.status.as_str());
    statement["status_notes"] = json!(s.notes.join("\n"));
    if let Some(justification) = finding.justification {
        statement["justification"] = json!(justification.as_str());
    }
    if let Some(action) = &finding.action {
        statement["action_statement"] = json!(action);
    }
    statement
}

/// A CycloneDX 1.5 document with the components and their vulnerabilities.
pub fn cyclonedx(result: &TriageResult, options: VexOptions<'_>) -> String {
    let statements = statements(result);
    let mut components: BTreeMap<&str, Value> = BTreeMap::new();
    for s in &statements {
        components.entry(&s.product.purl).or_insert_with(|| component(s.product));
    }
    let vulnerabilities: Vec<Value> = statements.iter().map(vulnerability).collect();
    pretty(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}", uuid(options.digest)),
        "version": 1,
        "metadata": {
            "timestamp": options.timestamp,
            "tools": { "components": [
                { "type": "application", "name": "altaz", "version": result.tool_version }
            ] },
        },
        "components": components.into_values().collect::<Vec<_>>(),
        "vulnerabilities": vulnerabilities,
    }))
}

fn component(product: &Product) -> Value {
    let kernel = product.cpe.as_deref().is_some_and(|c| c.starts_with("cpe:2.3:o:"));
    let mut component = json!({
        "type": if kernel { "operating-system" } else { "library" },
        "bom-ref": product.purl,
        "name": product.name,
        "version": product.version,
        "purl": product.purl,
    });
    if let Some(cpe) = &product.cpe {
        component["cpe"] = json!(cpe);
    }
    component
}

fn vulnerability(s: &Statement<'_>) -> Value {
    let finding = s.worst;
    let state = match finding.status {
        VexStatus::NotAffected => "not_affected",
        VexStatus::Affected => "exploitable",
        VexStatus::Fixed => "resolved",
        VexStatus::UnderInvestigation => "in_triage",
    };
    let mut analysis = json!({ "state": state, "detail": s.notes.join("\n") });
    if let Some(justification) = finding.justification {
        analysis["justification"] = json!(match justification {
            Justification::ComponentNotPresent | Justification::CodeNotPresent =>
                "code_not_present",
            Justification::CannotBeControlled => "protected_by_mitigating_control",
        });
    }
    if finding.action.is_some() {
        analysis["response"] = json!(["update"]);
    }
    let mut out = json!({
        "bom-ref": format!("{} {}", finding.id, s.product.purl),
        "id": finding.id,
        "analysis": analysis,
        "affects": [{ "ref": s.product.purl }],
        "properties": properties(finding),
    });
    if let Some(title) = &finding.title {
        out["description"] = json!(title);
    }
    if let Some(action) = &finding.action {
        out["recommendation"] = json!(action);
    }
    let method = finding.cvss.as_deref().and_then(|v| match v {
        v if v.starts_with("CVSS:3.1") => Some("CVSSv31"),
        v if v.starts_with("CVSS:3.0") => Some("CVSSv3"),
        v if v.starts_with("CVSS:4.0") => Some("CVSSv4"),
        _ => None,
    });
    if let (Some(method), Some(vector)) = (method, &finding.cvss) {
        out["ratings"] = json!([{ "method": method, "vector": vector }]);
    }
    out
}

fn properties(finding: &Finding) -> Value {
    let mut all = vec![
        ("altaz:state", finding.state.to_string()),
        ("altaz:evidence", finding.level.to_string()),
    ];
    if let Some(coverage) = finding.coverage {
        all.push(("altaz:coverage", coverage.to_string()));
    }
    if let Some(epss) = finding.exploitation.epss {
        all.push(("altaz:epss", epss.to_string()));
    }
    if let Some(kev) = &finding.exploitation.kev {
        all.push(("altaz:kev", kev.clone()));
    }
    all.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// The first 32 digits of a digest in the form of a UUID (version 8: the maker's own).
fn uuid(digest: &str) -> String {
    let mut digits: Vec<char> = digest.chars().chain("0".repeat(32).chars()).take(32).collect();
    digits.iter_mut().filter(|c| !c.is_ascii_hexdigit()).for_each(|c| *c = '0');
    if let Some(version) = digits.get_mut(12) {
        *version = '8';
    }
    if let Some(variant) = digits.get_mut(16) {
        *variant = 'a';
    }
    let text: String = digits.into_iter().collect();
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
