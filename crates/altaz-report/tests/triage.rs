//! Triage as text and as VEX. The documents are read by others' readers: OpenVEX by the crate of that
//! name (which knows the early form), CycloneDX by its published schema.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altaz_profile::results::triage::*;
use altaz_profile::vulnerability::Exploitation;
use altaz_profile::{Layer, Owner};
use altaz_report::*;
use serde::Deserialize;
use serde_json::Value;

fn finding(id: &str, product: usize, state: State, status: VexStatus) -> Finding {
    Finding {
        id: id.into(),
        aliases: vec![],
        title: Some(format!("title of {id}")),
        product,
        state,
        level: Level::Function,
        why: format!("why of {id}"),
        traversed: vec![],
        coverage: Some(0.998),
        status,
        justification: (status == VexStatus::NotAffected).then_some(Justification::CodeNotPresent),
        action: (status == VexStatus::Affected).then(|| "upgrade it".into()),
        cvss: Some("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:L/A:H".into()),
        exploitation: Exploitation {
            epss: Some(0.281),
            epss_of: Some("2026-08-22".into()),
            kev: Some("2024-05-30".into()),
        },
        feeds: vec!["kernel-cna".into()],
    }
}

/// A host kernel of the provider and a guest kernel of the tenant from one package.
fn result() -> TriageResult {
    let product = |layer, owner| {
        Product {
        purl: "pkg:deb/debian/linux-image-6.12.117%2Bdeb13-cloud-amd64@6.12.117-1?arch=amd64&distro=trixie".into(),
        cpe: Some("cpe:2.3:o:linux:linux_kernel:6.12.117:*:*:*:*:*:*:*".into()),
        name: "linux-image-6.12.117+deb13-cloud-amd64".into(),
        version: "6.12.117-1".into(),
        place: "host".into(),
        layers: vec![layer],
        owner: Some(owner),
    }
    };
    let mut traversed = finding("CVE-2026-68118", 1, State::Traversed, VexStatus::Affected);
    traversed.traversed = vec!["tcp_check_req (net/ipv4/tcp_minisocks.c) in guest-kernel".into()];
    let findings = vec![
        traversed,
        finding("CVE-2026-68118", 0, State::NotTraversed, VexStatus::UnderInvestigation),
        finding("CVE-2026-74542", 0, State::NotLoaded, VexStatus::UnderInvestigation),
        finding("CVE-2022-48785", 0, State::Fixed, VexStatus::Fixed),
        finding("CVE-2026-74537", 0, State::NotPresent, VexStatus::NotAffected),
    ];
    let counts = State::ALL
        .iter()
        .map(|&state| StateCount {
            state,
            findings: findings.iter().filter(|f| f.state == state).count() as u64,
        })
        .collect();
    TriageResult {
        schema: TRIAGE_SCHEMA.into(),
        tool_version: "0.1.0".into(),
        feeds: vec![FeedInfo {
            feed: "kernel-cna".into(),
            from: "feeds/kernel-cna".into(),
            imported_at: "2026-11-24T08:00:00Z".into(),
            records: 404,
            problems: 1,
        }],
        profiles: vec![ProfileTriage {
            file: "qemu-microvm.altaz".into(),
            service: "web".into(),
            deployment: "qemu-microvm".into(),
            recorded_at: "2026-11-24T08:00:00Z".into(),
            products: vec![
                product(Layer::HostKernel, Owner::Provider),
                product(Layer::GuestKernel, Owner::Tenant),
            ],
            counts,
            findings,
            not_installed: 1234,
            notes: vec![],
        }],
    }
}

const OPTIONS: VexOptions<'_> = VexOptions {
    timestamp: "2026-11-24T09:00:00Z",
    author: "altaz",
    digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
};

#[test]
fn a_terminal_shows_the_urgent_ones_and_counts_the_rest() {
    let text = triage_text(&result(), 20, false, TextOptions::default());
    insta::assert_snapshot!(text);
    let all = triage_text(&result(), 20, true, TextOptions::default());
    assert!(all.contains("CVE-2022-48785") && !text.contains("CVE-2022-48785"));
    assert!(triage_text(&result(), 1, false, TextOptions::default()).contains("2 more"));
}

/// What OpenVEX 0.2.0 allows, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "@context")]
    context: String,
    #[serde(rename = "@id")]
    id: String,
    author: String,
    #[serde(rename = "role")]
    _role: String,
    timestamp: String,
    version: u32,
    #[serde(rename = "tooling")]
    _tooling: String,
    statements: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    vulnerability: Name,
    timestamp: String,
    products: Vec<Component>,
    status: String,
    status_notes: String,
    justification: Option<String>,
    action_statement: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
    #[serde(rename = "aliases")]
    _aliases: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    #[serde(rename = "@id")]
    id: String,
    identifiers: Identifiers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identifiers {
    purl: String,
}

#[test]
fn openvex_states_each_vulnerability_of_a_product_once_with_the_most_urgent_status() {
    let text = openvex(&result(), OPTIONS, OpenVexForm::V020).unwrap();
    let document: Document = serde_json::from_str(&text).unwrap();
    assert_eq!(document.context, "https://openvex.dev/ns/v0.2.0");
    assert!(document.id.starts_with("https://") && document.id.contains("0123456789abcdef"));
    assert_eq!((document.author.as_str(), document.version), ("altaz", 1));
    assert_eq!(document.timestamp, OPTIONS.timestamp);
    let of = |id: &str| {
        let mut all = document.statements.iter().filter(|s| s.vulnerability.name == id);
        let one = all.next().unwrap();
        assert!(all.next().is_none(), "{id} is stated twice");
        one
    };
    assert_eq!(document.statements.len(), 4);
    let affected = of("CVE-2026-68118");
    assert_eq!(
        (affected.status.as_str(), affected.action_statement.as_deref()),
        ("affected", Some("upgrade it"))
    );
    assert!(
        affected.status_notes.contains("(guest-kernel): traversed"),
        "{}",
        affected.status_notes
    );
    assert!(
        affected.status_notes.contains("(host-kernel): not-traversed"),
        "{}",
        affected.status_notes
    );
    let open = of("CVE-2026-74542");
    assert_eq!((open.status.as_str(), &open.justification), ("under_investigation", &None));
    assert_eq!(of("CVE-2022-48785").status, "fixed");
    assert_eq!(of("CVE-2026-74537").justification.as_deref(), Some("vulnerable_code_not_present"));
    for s in &document.statements {
        let [product] = &s.products[..] else { panic!("one product") };
        assert_eq!(product.id, product.identifiers.purl);
        assert_eq!(s.timestamp, OPTIONS.timestamp);
        assert!(product.id.starts_with("pkg:deb/debian/linux-image"));
    }
    let mut empty = result();
    empty.profiles[0].findings.clear();
    assert_eq!(openvex(&empty, OPTIONS, OpenVexForm::V020), None);
}

#[test]
fn the_openvex_crate_reads_the_early_form() {
    let text = openvex(&result(), OPTIONS, OpenVexForm::Early).unwrap();
    let document: openvex::OpenVex = serde_json::from_str(&text).unwrap();
    assert_eq!(document.statements.len(), 4);
    let affected = document
        .statements
        .iter()
        .find(|s| s.vulnerability.as_deref() == Some("CVE-2026-68118"))
        .unwrap();
    assert_eq!(affected.status, openvex::Status::Affected);
    assert!(affected.action_statement.is_some());
    // It reads what is written and would write the same.
    let again: Value = serde_json::to_value(&document).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
}

/// A published schema as `tests/fixtures/schemas` keeps it.
fn schema(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/schemas/");
    serde_json::from_str(&std::fs::read_to_string(format!("{path}{name}")).unwrap()).unwrap()
}

#[test]
fn cyclonedx_is_valid_against_its_published_schema() {
    // The schemas refer to each other by names beside them.
    const BESIDE: &str = "http://cyclonedx.org/schema/";
    const BOM: &str = "bom-1.5.SNAPSHOT.schema.json";
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    for name in [BOM, "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json"] {
        compiler.add_resource(&format!("{BESIDE}{name}"), schema(name)).unwrap();
    }
    let bom = compiler.compile(&format!("{BESIDE}{BOM}"), &mut schemas).unwrap();

    let document: Value = serde_json::from_str(&cyclonedx(&result(), OPTIONS)).unwrap();
    if let Err(error) = schemas.validate(&document, bom) {
        panic!("{error:#}");
    }
    // The schema is one that refuses.
    for (place, wrong) in [
        ("/vulnerabilities/0/analysis/state", Value::from("unknown")),
        ("/components/0/type", Value::from("kernel")),
        ("/metadata/timestamp", Value::from("yesterday")),
        ("/serialNumber", Value::from("1")),
    ] {
        let mut refused = document.clone();
        *refused.pointer_mut(place).unwrap() = wrong;
        assert!(schemas.validate(&refused, bom).is_err(), "{place} is not looked at");
    }

    let state = |id: &str| {
        let all = document["vulnerabilities"].as_array().unwrap();
        all.iter().find(|v| v["id"] == id).unwrap()["analysis"]["state"].as_str().unwrap()
    };
    assert_eq!(state("CVE-2026-68118"), "exploitable");
    assert_eq!(state("CVE-2026-74542"), "in_triage");
    assert_eq!(state("CVE-2022-48785"), "resolved");
    assert_eq!(state("CVE-2026-74537"), "not_affected");
    assert_eq!(document["components"].as_array().unwrap().len(), 1);
}

#[test]
fn json_is_read_back_as_it_was() {
    let text = triage_json(&result()).unwrap();
    let again: TriageResult = serde_json::from_str(&text).unwrap();
    assert_eq!(again, result());
}
