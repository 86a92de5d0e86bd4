//! What people read in a browser, and what programs read.

mod common;

use altaz_profile::results::{CompareResult, ProfileReport};
use altaz_report::{compare_html, compare_json, diff_html, diff_json, profile_html, profile_json};

fn pages() -> [String; 4] {
    [
        compare_html(&common::compare(), &[]),
        profile_html(&common::profile(common::runc()), None),
        profile_html(&common::profile(common::live()), None),
        diff_html(&common::difference(), 10),
    ]
}

#[test]
fn a_page_needs_nothing_else_and_runs_nothing() {
    for page in pages() {
        for outside in ["http:", "https:", "<script", "<link", "<img", "src=\"", "url(", "@import"]
        {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
        assert!(page.contains("default-src 'none'"));
        assert!(page.contains("prefers-color-scheme: dark"));
    }
}

#[test]
fn a_page_closes_what_it_opens() {
    const VOID: [&str; 1] = ["meta"];
    for page in pages() {
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1).filter_map(|t| t.split_once('>')).map(|(t, _)| t) {
            let name = tag.split([' ', '/']).next().unwrap_or("");
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed), "in {page}"),
                None if tag.starts_with('!') || tag.ends_with('/') || VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
        assert_eq!(open, [""; 0]);
    }
}

#[test]
fn every_deployment_has_a_section_and_every_available_one_a_bar() {
    let page = compare_html(&common::compare(), &[]);
    assert_eq!(page.matches("<svg").count(), 3);
    for name in ["runc", "runsc-systrap", "qemu-microvm", "firecracker"] {
        assert!(page.contains(&format!("<h2>{name}</h2>")), "{name}");
    }
    assert!(page.contains("not available: no `firecracker` on this machine"));
}

#[test]
fn markup_in_a_profile_is_shown_and_not_obeyed() {
    let mut d = common::runc();
    let evil = "<script>alert('x')</script>&\"";
    d.name = evil.into();
    d.notes.push(evil.into());
    d.layers[0].components[0].name = evil.into();
    d.boundaries[0].entries[0].name = evil.into();
    d.boundaries[0].name = evil.into();
    d.blind_spots[0].what = evil.into();
    let mut result = common::compare();
    result.service = evil.into();
    result.deployments.push(d.clone());
    for page in [compare_html(&result, &[]), profile_html(&common::profile(d), None)] {
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("alert('x')"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"));
    }
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
    assert!(!page.contains("<script") && !page.contains("alert('x')"), "{page}");
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
    assert!(!page.contains("<svg") && page.contains("firecracker") && page.ends_with("</html>\n"));
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
