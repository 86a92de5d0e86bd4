//! What people read in a browser, and what programs read.

mod common;

use altaz_profile::results::{
    Barrier, CompareResult, EscapePath, KindLayer, KindResult, ProfileReport,
};
use altaz_profile::{Layer, Owner};
use altaz_report::{compare_html, compare_json, diff_html, diff_json, profile_html, profile_json};

fn pages() -> [String; 7] {
    [
        compare_html(&common::compare(), &[]),
        compare_html(&common::compare(), &common::functions()),
        profile_html(&common::profile(common::runc()), None),
        profile_html(&common::profile(common::runc()), Some(&common::functions()[0])),
        profile_html(&common::profile(common::live()), None),
        diff_html(&common::difference(), 10),
        compare_html(
            &CompareResult { risk: Some(common::risk()), ..common::compare() },
            &common::functions(),
        ),
    ]
}

/// Content of the elements of this name.
fn contents<'a>(page: &'a str, element: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    page.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split_once('>')?.1.split_once(&close).map(|(inside, _)| inside))
        .collect()
}

/// A page without what style and scripts hold.
fn markup(page: &str) -> String {
    let mut out = page.to_owned();
    for element in ["style", "script"] {
        for inside in contents(page, element) {
            out = out.replace(inside, "");
        }
    }
    out
}

#[test]
fn kinds_of_requests_are_on_the_page() {
    let mut all = common::compare();
    let first = all.deployments.iter_mut().find(|d| d.available).unwrap();
    let load = first.load.clone().unwrap();
    let kind = |name: &str| KindResult {
        name: name.into(),
        load: load.clone(),
        layers: vec![KindLayer {
            name: Layer::HostKernel,
            functions: 12,
            bytes: 3_400,
            own_functions: 7,
            coverage: None,
        }],
        vap: first.vap,
        hap: first.hap,
    };
    first.kinds = vec![kind("read <b>"), kind("write")];
    let page = compare_html(&all, &[]);
    let markup = markup(&page);
    assert!(markup.contains("Kinds of requests"), "{markup}");
    assert!(markup.contains("read &lt;b&gt;: ") && markup.contains("7 of them this kind's alone"));
    assert!(!contents(&page, "li").is_empty());
}

#[test]
fn a_page_needs_nothing_else() {
    for page in pages() {
        let markup = markup(&page);
        assert!(!event_handler(&markup), "{markup}");
        for outside in ["http:", "https:", "<link", "<img", "src=\"", "@import", "style=\""] {
            assert!(!markup.contains(outside), "{outside} in {markup}");
        }
        for style in contents(&page, "style") {
            assert!(style.matches("url(").count() == style.matches("url(#").count());
            assert!(!style.contains("@import") && style.contains("prefers-color-scheme: dark"));
        }
        let policy = page.split("content=\"default-src 'none'").nth(1).unwrap_or("");
        assert!(policy.starts_with("; base-uri 'none'; form-action 'none'; style-src 'sha256-"));
    }
}

fn event_handler(markup: &str) -> bool {
    markup
        .split('<')
        .filter_map(|t| t.split_once('>'))
        .any(|(tag, _)| tag.split(' ').skip(1).any(|a| a.starts_with("on") && a.contains("=\"")))
}

#[test]
fn what_runs_is_this_crates_own_by_its_hash_and_only_where_there_are_functions() {
    use base64::Engine as _;
    use sha2::Digest as _;
    for (page, scripted) in pages().iter().zip([false, true, false, true, false, false, true]) {
        let scripts = contents(page, "script");
        assert_eq!(scripts.len(), if scripted { 2 } else { 0 });
        assert_eq!(page.contains("script-src 'none'"), !scripted);
        if let [data, script] = scripts[..] {
            let digest = sha2::Sha256::digest(script.as_bytes());
            let hash = base64::engine::general_purpose::STANDARD.encode(digest);
            assert!(page.contains(&format!("script-src 'sha256-{hash}'")), "{hash}");
            assert!(serde_json::from_str::<serde_json::Value>(data).is_ok(), "{data}");
        }
    }
}

#[test]
fn a_page_closes_what_it_opens() {
    const VOID: [&str; 2] = ["meta", "input"];
    for page in pages() {
        let page = markup(&page);
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1).filter_map(|t| t.split_once('>')).map(|(t, _)| t) {
            let name = tag.split([' ', '/']).next().unwrap_or("");
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed), "in {page}"),
                None if tag.starts_with('!') || VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
        assert_eq!(open, [""; 0]);
    }
}

#[test]
fn every_deployment_has_a_stack_or_the_reason_for_none() {
    let page = compare_html(&common::compare(), &[]);
    assert_eq!(page.matches("<svg class=\"stack\"").count(), 3);
    for name in ["runc", "runsc-systrap", "qemu-microvm"] {
        assert!(page.contains(&format!("<h2>{name}</h2>")), "{name}");
        assert!(page.contains(&format!(">Stack of {name}</title>")), "{name}");
    }
    assert!(page.contains("not available: no `firecracker` on this machine"));
}

#[test]
fn every_drawing_says_in_words_what_it_shows() {
    for page in pages() {
        let page = markup(&page);
        for tag in page.split("<svg").skip(1).filter_map(|t| t.split_once('>')).map(|(t, _)| t) {
            let described = ["aria-labelledby=", "aria-label=", "aria-hidden="];
            let part = tag.contains("class=\"mark\"")
                || tag.contains("class=\"layer\"")
                || tag.contains("class=\"part\"");
            assert!(part || described.iter().any(|d| tag.contains(d)), "{tag}");
            for id in tag.split("aria-labelledby=\"").skip(1).filter_map(|t| t.split('"').next()) {
                for id in id.split(' ') {
                    assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
                }
            }
        }
    }
}

#[test]
fn what_is_shared_spans_both_tenants_and_what_moved_or_is_a_model_says_so() {
    let mut sandbox = common::runsc();
    sandbox.model_only = true;
    let page = profile_html(&common::profile(sandbox), None);
    let stack = page.split("<svg class=\"stack model\"").nth(1).unwrap();
    let stack = stack.split("</svg>").next().unwrap();
    assert!(stack.contains(">HAP</text>"), "{stack}");
    assert!(stack.contains("provider, moved*"));
    let shared = stack.split("<g class=\"provider\">").nth(2).unwrap();
    assert!(
        shared.starts_with("<rect x=\"22.0\"") && shared.contains("width=\"124.0\""),
        "{shared}"
    );
    let own = stack.split("<g class=\"tenant\">").nth(1).unwrap();
    assert!(own.contains("class=\"second\""), "{own}");
    assert!(page.contains(">model, not measured</span>"));

    let mut alone = common::runc();
    alone.layers.iter_mut().for_each(|l| l.shared = false);
    let page = profile_html(&common::profile(alone), None);
    assert!(page.contains("a machine each, not measured") && !page.contains(">HAP</text>"));
}

#[test]
fn markup_in_a_profile_is_shown_and_not_obeyed() {
    let mut d = common::runc();
    let evil = "</script><script>alert('x')</script>&\"\u{202e}";
    d.name = evil.into();
    d.notes.push(evil.into());
    d.layers[0].components[0].name = evil.into();
    d.boundaries[0].entries[0].name = evil.into();
    d.boundaries[0].name = evil.into();
    d.blind_spots[0].what = evil.into();
    let mut table = common::functions().remove(0);
    table.deployment = evil.into();
    table.layers[0].components[0] = evil.into();
    table.layers[0].functions[0].symbol = evil.into();
    table.layers[0].functions[0].binary = evil.into();
    let mut result = common::compare();
    result.service = evil.into();
    result.deployments.push(d.clone());
    let plain = [
        compare_html(&result, &[]),
        profile_html(&common::profile(d.clone()), None),
        compare_html(&result, std::slice::from_ref(&table)),
        profile_html(&common::profile(d), Some(&table)),
    ];
    for (page, scripts) in plain.iter().zip([0, 0, 2, 2]) {
        assert_eq!(page.matches("<script").count(), scripts, "{page}");
        assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'), "{page}");
        assert!(page.contains("&lt;script&gt;alert('x')&lt;/script&gt;&amp;&quot;\u{fffd}"));
        for data in contents(page, "script").into_iter().take(1) {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            let strings = data["strings"].as_array().unwrap();
            let clean = evil.replace('\u{202e}', "\u{fffd}");
            assert!(strings.iter().any(|s| s.as_str() == Some(&clean)), "{strings:?}");
        }
    }
}

#[test]
fn the_data_of_a_page_are_the_functions_of_its_tables() {
    let tables = common::functions();
    let page = compare_html(&common::compare(), &tables);
    let data: serde_json::Value = serde_json::from_str(contents(&page, "script")[0]).unwrap();
    let strings = data["strings"].as_array().unwrap();
    let name = |at: &serde_json::Value| {
        strings[at.as_u64().unwrap() as usize].as_str().unwrap().to_owned()
    };
    let layer = &data["deployments"][0]["layers"][0];
    let of = &tables[0].layers[0];
    assert_eq!(layer["size"].as_array().unwrap().len(), of.functions.len());
    for (i, f) in of.functions.iter().enumerate() {
        assert_eq!(name(&layer["symbol"][i]), *f.symbol);
        assert_eq!(layer["size"][i], f.size);
        assert_eq!(layer["covered"][i], f.covered.unwrap());
    }
    // What is nowhere known takes no room.
    assert!(layer.get("age").is_none() && layer.get("cves").is_none());
    assert!(strings.is_sorted_by_key(|s| s.as_str()));
}

#[test]
fn what_there_are_no_data_for_cannot_be_chosen_and_says_why() {
    let mut tables = common::functions();
    let page = compare_html(&common::compare(), &tables);
    let of = |page: &str, value: &str| {
        let rest = page.split(&format!("value=\"{value}\"")).nth(1).unwrap().to_owned();
        rest.split("</label>").next().unwrap().to_owned()
    };
    assert!(
        of(&page, "cves").contains("disabled")
            && of(&page, "cves").contains("no vulnerability feed")
    );
    assert!(of(&page, "age").contains("disabled") && !of(&page, "covered").contains("disabled"));
    for f in tables.iter_mut().flat_map(|t| &mut t.layers).flat_map(|l| &mut l.functions) {
        f.age_years = Some(2.5);
        f.vulnerabilities = Some(vec!["CVE-2024-0001".into()]);
    }
    let page = compare_html(&common::compare(), &tables);
    assert!(!of(&page, "cves").contains("disabled") && !of(&page, "age").contains("disabled"));
    assert!(contents(&page, "script")[0].contains("CVE-2024-0001"));
}

#[test]
fn risk_has_its_intervals_and_says_what_is_undecided() {
    let result = CompareResult { risk: Some(common::risk()), ..common::compare() };
    let page = compare_html(&result, &[]);
    let figure =
        page.split("<figure id=\"risk\"").nth(1).unwrap().split("</figure>").next().unwrap();
    for text in [
        "aria-label=\"runc, tenant: 0.11 (0.014 to 0.99)\"",
        "aria-label=\"qemu-microvm, nobody: 0.03 (",
        "holds 90 % of 10,000 draws (seed 7)",
        "built-in priors of 2026-08",
        ">0.99",
        "runc is smaller",
        "undecided",
        "equal",
        "owner cannot fix it",
        "no history of the language runtime",
    ] {
        assert!(figure.contains(&text.replace(">0.99", "&gt;0.99")), "{text} in {figure}");
    }
    // Nobody's code is a row only where there is some.
    assert!(!figure.contains("runc, nobody"));
    let mut none = common::risk();
    for d in &mut none.deployments {
        (d.tenant, d.provider, d.hap) = Default::default();
        d.orphaned = Default::default();
    }
    let page = compare_html(&CompareResult { risk: Some(none), ..common::compare() }, &[]);
    assert!(page.contains("id=\"risk\"") && !page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn every_way_out_has_its_barriers_in_order() {
    let barrier = |to: Layer, owner: Owner, tenant_held: bool| Barrier {
        name: "syscall + mmio".into(),
        from: Layer::App,
        to,
        owner,
        shared: to == Layer::HostKernel,
        functions: Some(641),
        bytes: Some(240_019),
        covered_bytes: None,
        permitted: (!tenant_held).then_some(40),
        exercised: Some(10),
        interfaces: vec![],
        guard: Some("seccomp <filter>".into()),
        open: false,
        tenant_held,
    };
    let mut d = common::microvm();
    d.escape_paths = vec![EscapePath {
        name: "app → guest-kernel → host-kernel".into(),
        barriers: vec![
            barrier(Layer::GuestKernel, Owner::Tenant, true),
            barrier(Layer::HostKernel, Owner::Provider, false),
        ],
    }];
    let page = profile_html(&common::profile(d), None);
    let figure =
        page.split("<figure id=\"paths\"").nth(1).unwrap().split("</figure>").next().unwrap();
    let (first, second) = figure.split_once("</li>").unwrap();
    assert!(first.contains("guest-kernel") && first.contains("the tenant's own"), "{first}");
    assert!(first.contains("10 / –") && first.contains("track open"), "{first}");
    assert!(second.contains("host-kernel") && second.contains("10 / 40"), "{second}");
    assert!(
        second.contains("width=\"25.000%\"") && second.contains("provider, shared"),
        "{second}"
    );
    assert!(second.contains("641 functions, 240.0 kB behind it"), "{second}");
    assert!(second.contains("seccomp &lt;filter&gt;"), "{second}");
    // Without a way there is no figure.
    assert!(!profile_html(&common::profile(common::runc()), None).contains("id=\"paths\""));
}

#[test]
fn a_small_page_is_as_it_was() {
    let mut result = common::compare();
    result.deployments.truncate(1);
    let tables = &common::functions()[..1];
    let page = markup(&compare_html(&result, tables)).replace("><", ">\n<");
    let policy = page.split("content=\"default").nth(1).and_then(|p| p.split('"').next()).unwrap();
    insta::assert_snapshot!(page.replace(policy, ""));
}

#[test]
fn a_page_of_a_difference_shows_text_of_others_as_text_and_its_json_reads_back() {
    let mut result = common::difference();
    let evil = "<script>alert('x')</script>&\"";
    result.a.file = evil.into();
    result.new[0].symbol = evil.into();
    result.limits[0].a = evil.into();
    result.boundaries[0].new[0].name = evil.into();
    result.posture[0].comm = evil.into();
    let page = diff_html(&result, 10);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("cap_net_raw") && page.contains("really new in B"), "{page}");
    let json = diff_json(&result).unwrap();
    let read: altaz_profile::results::diff::DiffResult = serde_json::from_str(&json).unwrap();
    assert_eq!(read, result);
    assert!(json.starts_with("{\n  \"schema\": \"altaz.diff/1\""), "{json}");
}

#[test]
fn a_page_of_a_comparison_without_figures_is_still_a_page() {
    let mut result = common::compare();
    result.deployments.retain(|d| !d.available);
    let page = compare_html(&result, &[]);
    assert!(
        !page.contains("class=\"stack\"")
            && page.contains("firecracker")
            && page.ends_with("</html>\n")
    );
}

#[test]
fn json_reads_back_as_what_was_written_with_keys_in_the_documented_order() {
    let result = common::compare();
    let json = compare_json(&result).unwrap();
    assert_eq!(serde_json::from_str::<CompareResult>(&json).unwrap(), result);
    assert_eq!(compare_json(&result).unwrap(), json, "the same values give the same text");
    let at = |key: &str| json.find(&format!("\"{key}\":")).unwrap_or(usize::MAX);
    let order = ["schema", "service", "host", "deployments", "name", "layers", "vap", "hap"];
    assert!(order.map(at).is_sorted(), "{json}");
    assert!(json.ends_with("}\n"));

    let report = common::profile(common::microvm());
    let json = profile_json(&report).unwrap();
    assert_eq!(serde_json::from_str::<ProfileReport>(&json).unwrap(), report);
}
