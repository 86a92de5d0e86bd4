//! A user's spec and what is said about its mistakes.
#![allow(clippy::unwrap_used, reason = "test code, helpers included")]

use std::path::Path;

use altaz_deploy::{Image, LoadKind, ReadyCheck, ServiceSpec};

/// A correct spec, in which tests break one line.
const GOOD: &str = r#"name = "web"

[image]
suite = "trixie"
packages = ["nginx", "postgresql"]
copy = [{ from = "app", to = "/srv/web" }]
setup = ["sh /srv/web/setup"]
size = "2G"

[service]
command = ["/srv/web/serve"]
port = 8080

[service.env]
MODE = "production"

[ready]
http = "/"

[load]
requests = 600
http = { method = "POST", path = "/visit", rate = 10.0 }

[layers]
language-runtime = ["/opt/node/bin/*"]
"#;

/// A directory with what the spec names, and the path of the spec in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("image.tar"), b"").unwrap();
        Self(dir)
    }

    fn parse(&self, text: &str) -> Result<ServiceSpec, String> {
        let dir = self.0.path();
        ServiceSpec::parse(text, &dir.join("web.toml"))
            .map_err(|e| e.to_string().replace(&format!("{}/", dir.display()), ""))
    }
}

/// What is said when the line of [`GOOD`] that begins with `line` is replaced.
fn broken(line: &str, replacement: &str) -> String {
    let mut hit = false;
    let text: String = GOOD
        .lines()
        .map(|l| {
            if l.starts_with(line) {
                hit = true;
                format!("{replacement}\n")
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    assert!(hit, "no line begins with {line:?}");
    Place::new().parse(&text).unwrap_err()
}

#[test]
fn a_complete_spec_is_read_with_its_defaults() {
    let place = Place::new();
    let spec = place.parse(GOOD).unwrap();
    let Image::Recipe { copy, size, .. } = &spec.image else { panic!("{:?}", spec.image) };
    assert_eq!(copy[0].from, place.0.path().join("app"));
    assert_eq!(*size, Some(2 << 30));
    assert_eq!((spec.service.workdir.as_str(), spec.service.user.as_str()), ("/", "root"));
    assert_eq!(spec.ready.check, ReadyCheck::Http("/".into()));
    assert_eq!((spec.ready.port, spec.ready.timeout_s), (8080, 180));
    assert_eq!(spec.layers[0].globs, ["/opt/node/bin/*"]);
    assert_eq!(spec.load_key(), "600 × POST /visit, 10 requests/s, 1 connection");
}

#[test]
fn a_spec_survives_the_way_to_the_lab() {
    let spec = Place::new().parse(GOOD).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ServiceSpec>(&json).unwrap(), spec);
}

#[test]
fn without_a_readiness_check_the_port_itself_is_asked() {
    let spec = Place::new().parse(&GOOD.replace("[ready]\nhttp = \"/\"\n", "")).unwrap();
    assert_eq!(spec.ready.check, ReadyCheck::Tcp);
}

#[test]
fn a_pod_has_processes_with_images_of_their_own_and_runs_only_where_pods_run() {
    let process = "[[process]]\nname = \"db\"\ncommand = [\"/db\"]\nuser = \"postgres\"\n\
                   [process.image]\nsuite = \"trixie\"\npackages = [\"postgresql\"]\n";
    let with = |more: &str| Place::new().parse(&format!("{GOOD}{more}"));
    let spec = with(process).unwrap();
    assert_eq!(spec.images().count(), 2);
    let db = &spec.processes[0];
    assert_eq!(
        (db.name.as_str(), db.service.user.as_str(), db.service.port),
        ("db", "postgres", 0)
    );
    for deployment in altaz_deploy::all() {
        let pods = ["process", "runc", "crun", "runc-in-qemu"].contains(&deployment.name());
        let refused = deployment.runs(&spec).err().map(|e| e.to_string());
        assert_eq!(refused.is_none(), pods, "{}: {refused:?}", deployment.name());
        assert!(refused.is_none_or(|r| r.contains("`db`") && r.contains("choose process, runc")));
        assert!(deployment.runs(&with("").unwrap()).is_ok());
    }
    let twice = with(&format!("{process}{process}")).unwrap_err();
    assert!(twice.contains("two processes are called `db`"), "{twice}");
    let port = with(&process.replace("user", "port = 1\nuser")).unwrap_err();
    assert!(port.contains("unknown key in [process]"), "{port}");
    let bare = with("[[process]]\nname = \"db\"\ncommand = [\"/db\"]\n").unwrap_err();
    assert!(bare.contains("process.image: is missing"), "{bare}");
}

#[test]
fn several_kinds_of_requests_have_a_name_each_and_are_made_in_order() {
    let one = GOOD.find("[load]").unwrap()..GOOD.find("[layers]").unwrap();
    let with = |loads: &str| {
        let mut text = GOOD.to_owned();
        text.replace_range(one.clone(), loads);
        Place::new().parse(&text)
    };
    let read = "[[load]]\nname = \"read\"\nrequests = 200\nhttp = { path = \"/\", rate = 10.0 }\n";
    let write = "[[load]]\nname = \"write\"\nrequests = 100\n\
                 http = { method = \"POST\", path = \"/visit\", rate = 5.0 }\n";
    let spec = with(&format!("{read}{write}")).unwrap();
    let names: Vec<_> = spec.loads().map(|l| (l.name.as_str(), l.requests)).collect();
    assert_eq!(names, [("read", 200), ("write", 100)]);
    assert_eq!(
        spec.load_key(),
        "read: 200 × GET /, 10 requests/s, 1 connection; \
         write: 100 × POST /visit, 5 requests/s, 1 connection"
    );
    let twice = with(&format!("{read}{read}")).unwrap_err();
    assert!(twice.contains("two loads are called `read`"), "{twice}");
    let unnamed = with(&format!("{read}{}", write.replace("name = \"write\"\n", ""))).unwrap_err();
    assert!(unnamed.contains("load.name: is missing"), "{unnamed}");
    let none = with("load = []\n").unwrap_err();
    assert!(none.contains("load"), "{none}");
}

#[test]
fn a_load_command_gets_host_port_and_number_of_requests() {
    let command =
        r#"command = ["redis-benchmark", "-h", "{host}", "-p{port}", "-n", "{requests}"]"#;
    let text =
        GOOD.replace("http = { method = \"POST\", path = \"/visit\", rate = 10.0 }", command);
    let spec = Place::new().parse(&text).unwrap();
    assert!(matches!(spec.load.kind, LoadKind::Command(_)));
    assert_eq!(
        spec.load_command("10.77.0.10", 50).unwrap(),
        ["redis-benchmark", "-h", "10.77.0.10", "-p8080", "-n", "50"]
    );
}

#[test]
fn an_archive_is_an_image() {
    let text = GOOD.replace(
        &GOOD[GOOD.find("suite").unwrap()..GOOD.find("[service]").unwrap()],
        "oci = \"image.tar\"\n",
    );
    let spec = Place::new().parse(&text).unwrap();
    assert!(matches!(spec.image, Image::Oci { size: None, .. }), "{:?}", spec.image);
}

#[test]
fn every_mistake_is_named_with_line_column_and_remedy() {
    let cases = [
        ("unknown key", "port", "prot = 8080"),
        ("unknown key without a likely meaning", "port", "port = 8080\ncolour = \"blue\""),
        ("unknown table", "[ready]", "[redy]"),
        ("wrong type", "packages", "packages = \"nginx\""),
        ("wrong type in a list", "packages", "packages = [\"nginx\", 7]"),
        ("two image sources", "suite", "suite = \"trixie\"\noci = \"image.tar\""),
        ("no image source", "suite", ""),
        ("missing file", "copy", "copy = [{ from = \"nowhere\", to = \"/srv/web\" }]"),
        ("relative path in the image", "copy", "copy = [{ from = \"app\", to = \"srv\" }]"),
        ("path out of the image", "copy", "copy = [{ from = \"app\", to = \"/srv/../..\" }]"),
        ("unknown key in a list of tables", "copy", "copy = [{ form = \"app\", to = \"/srv\" }]"),
        ("not a size", "size", "size = \"2 GB\""),
        ("tiny size", "size", "size = \"1M\""),
        ("empty command", "command", "command = []"),
        ("no command", "command", ""),
        ("port out of range", "port", "port = 70000"),
        ("no requests", "requests", "requests = 0"),
        ("rate of zero", "http = { m", "http = { path = \"/\", rate = 0.0 }"),
        ("rate that is not a number", "http = { m", "http = { path = \"/\", rate = nan }"),
        ("lower-case method", "http = { m", "http = { method = \"post\", path = \"/\", rate = 1 }"),
        ("no load", "http = { m", ""),
        ("two readiness checks", "http = \"/\"", "http = \"/\"\ntcp = true"),
        ("unknown layer", "language-runtime", "language-runtimes = [\"/opt/*\"]"),
        ("broken glob", "language-runtime", "language-runtime = [\"/opt/[\"]"),
        ("name with a slash", "name", "name = \"../web\""),
        ("not TOML", "port", "port = = 8080"),
        ("key twice", "port", "port = 8080\nport = 8081"),
        ("command that looks like a load", "requests", "requests = 5\ncommand = [\"x\"]"),
    ];
    let mut report = String::new();
    for (what, line, replacement) in cases {
        report += &format!("# {what}\n{}\n\n", broken(line, replacement));
    }
    insta::assert_snapshot!(report);
}

#[test]
fn several_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = GOOD.replace("port = 8080", "port = 0").replace("600", "-1").replace("\"2G\"", "2");
    insta::assert_snapshot!(Place::new().parse(&text).unwrap_err());
}

#[test]
fn an_unreadable_file_is_named() {
    let e = ServiceSpec::load(Path::new("/nonexistent/web.toml")).unwrap_err();
    assert!(e.to_string().starts_with("/nonexistent/web.toml: cannot read"), "{e}");
}

mod arbitrary_text {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = ServiceSpec::parse(&text, Path::new("x.toml"));
        }

        #[test]
        fn a_damaged_spec_never_panics_and_problems_lie_inside_it(
            at in 0..GOOD.len(),
            len in 0usize..30,
            insert in "[\\PC\n]{0,12}",
        ) {
            let mut text = GOOD.to_owned();
            text.replace_range(at..(at + len).min(GOOD.len()), &insert);
            if let Err(e) = ServiceSpec::parse(&text, Path::new("x.toml")) {
                prop_assert!(!e.problems.is_empty());
                for p in &e.problems {
                    prop_assert!(p.line >= 1 && p.line <= text.lines().count() + 1, "{p:?}");
                    prop_assert!(p.column >= 1, "{p:?}");
                }
            }
        }
    }
}

#[test]
fn the_specs_that_altaz_ships_are_correct() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    for name in ["web.toml", "redis.toml"] {
        ServiceSpec::load(&demo.join(name)).unwrap();
    }
}
