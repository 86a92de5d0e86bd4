//! Archives made here, so that each scenario shows what is in it.

use std::io::Write;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::tarfiles::{TarFiles, TarKind};

enum Entry<'a> {
    File(&'a str, &'a str),
    Dir(&'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
}
use Entry::{Dir, File as F, Hard, Link};

fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1);
        header.set_size(0);
        let (path, data, link) = match entry {
            F(path, data) => (path, data.as_bytes(), None),
            Dir(path) => {
                header.set_entry_type(tar::EntryType::Directory);
                (path, &[][..], None)
            }
            Link(path, to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                (path, &[][..], Some(to))
            }
            Hard(path, to) => {
                header.set_entry_type(tar::EntryType::Link);
                (path, &[][..], Some(to))
            }
        };
        header.set_size(data.len() as u64);
        // Raw names: the builder itself would refuse the malicious ones.
        let name = header.as_old_mut();
        name.name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(to) = link {
            name.linkname[..to.len()].copy_from_slice(to.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An OCI archive of these layers, its index nested as `podman` and `docker` do for manifests
/// of several platforms.
fn archive(layers: &[Vec<u8>], nested: bool, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    let mut blob = |bytes: &[u8]| {
        add(&format!("blobs/sha256/{}", digest(bytes)), bytes);
        format!("sha256:{}", digest(bytes))
    };
    let config = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=1"],"Entrypoint":null,
        "Cmd":["/srv/app"],"WorkingDir":"/srv","User":"1000:1000"}}"#;
    let config = blob(config.as_bytes());
    let layers: Vec<_> = layers
        .iter()
        .map(|bytes| serde_json::json!({ "mediaType": "any", "digest": blob(bytes), "size": bytes.len() }))
        .collect();
    let manifest =
        serde_json::json!({ "config": { "digest": config }, "layers": layers }).to_string();
    let mut top = serde_json::json!({ "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": blob(manifest.as_bytes()),
          "platform": { "architecture": "amd64", "os": "linux" } },
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:0",
          "platform": { "architecture": "arm64", "os": "linux" } } ] });
    if nested {
        let inner = blob(top.to_string().as_bytes());
        top = serde_json::json!({ "manifests": [
            { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner } ] });
    }
    add("index.json", top.to_string().as_bytes());
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut bytes = tar.into_inner().unwrap();
    damage(&mut bytes);
    bytes
}

fn flat(archive: &[u8]) -> Result<(OciConfig, TarFiles)> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("image.tar"), dir.path().join("root.tar"));
    std::fs::write(&from, archive).unwrap();
    let config = flatten(&from, &to, &Interrupt::new())?;
    Ok((config, TarFiles::open(&to)?))
}

fn paths(tar: &TarFiles) -> Vec<&str> {
    let mut paths: Vec<_> = tar.entries().iter().map(|e| e.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn layers_of_every_compression_become_one_root() {
    let bottom =
        layer(&[Dir("./etc/"), F("etc/os", "debian"), F("etc/old", "x"), Link("bin", "usr/bin")]);
    let middle = gzip(&layer(&[F("usr/bin/app", "v1"), Hard("usr/bin/app2", "usr/bin/app")]));
    let top =
        zstd::encode_all(&layer(&[F("usr/bin/app", "v2"), F("etc/.wh.old", "")])[..], 3).unwrap();
    let (config, tar) = flat(&archive(&[bottom, middle, top], true, |_| {})).unwrap();
    assert_eq!(tar.read("/bin/app").unwrap(), b"v2");
    assert_eq!(tar.read("/bin/app2").unwrap(), b"v1", "a hard link keeps its own layer's content");
    assert_eq!(tar.read("/etc/os").unwrap(), b"debian");
    assert!(tar.find("/etc/old").is_none());
    assert_eq!(config.cmd, ["/srv/app"]);
    assert_eq!(config.entrypoint, [""; 0]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1000:1000", "/srv"));
    assert_eq!(config.env, ["A=1"]);
}

#[test]
fn whiteouts_hide_only_what_is_below_them() {
    let bottom =
        layer(&[Dir("a"), F("a/low", "1"), F("a/deep/low", "1"), F("b/low", "1"), F("c", "file")]);
    let top = layer(&[
        F("a/.wh..wh..opq", ""),
        F("a/high", "2"),
        F(".wh.b", ""),
        F("b/high", "2"),
        Dir("c"),
        F("c/inside", "2"),
    ]);
    let (_, tar) = flat(&archive(&[bottom, top], false, |_| {})).unwrap();
    assert_eq!(paths(&tar), ["/a", "/a/high", "/b/high", "/c", "/c/inside"]);
    assert!(tar.entries().iter().any(|e| e.path == "/c" && e.kind == TarKind::Directory));
}

#[test]
fn a_file_in_the_place_of_a_directory_hides_what_was_in_it() {
    let bottom = layer(&[Dir("d"), F("d/x", "1")]);
    let top = layer(&[F("d", "now a file")]);
    let (_, tar) = flat(&archive(&[bottom, top], false, |_| {})).unwrap();
    assert_eq!(paths(&tar), ["/d"]);
}

#[test]
fn entries_that_leave_the_root_are_refused() {
    for path in ["../etc/passwd", "a/../../b", "/../x"] {
        let error = flat(&archive(&[layer(&[F(path, "evil")])], false, |_| {})).unwrap_err();
        assert!(error.to_string().contains("leaves the root"), "{path}: {error}");
    }
    let hard = layer(&[Hard("x", "../../etc/shadow")]);
    assert!(flat(&archive(&[hard], false, |_| {})).is_err());
}

#[test]
fn files_behind_links_are_refused() {
    let same = layer(&[Link("a", "/etc"), F("a/passwd", "evil")]);
    let error = flat(&archive(&[same], false, |_| {})).unwrap_err().to_string();
    assert!(error.contains("no directory"), "{error}");
    let (low, high) = (layer(&[Link("a", "b")]), layer(&[F("a/x", "1")]));
    let error = flat(&archive(&[low, high], false, |_| {})).unwrap_err().to_string();
    assert!(error.contains("no directory"), "{error}");
}

#[test]
fn an_absolute_path_is_below_the_root() {
    let (_, tar) = flat(&archive(&[layer(&[F("/srv/app", "1")])], false, |_| {})).unwrap();
    assert_eq!(paths(&tar), ["/srv/app"]);
}

#[test]
fn a_changed_byte_in_a_layer_is_noticed() {
    let damaged = archive(&[layer(&[F("srv/app", "unchanged")])], false, |bytes| {
        let at = bytes.windows(9).position(|w| w == b"unchanged").unwrap();
        bytes[at] = b'U';
    });
    let error = flat(&damaged).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    let error = flat(b"not a tar at all").unwrap_err().to_string();
    assert!(error.contains("image.tar"), "{error}");
    let error = flat(&layer(&[F("manifest.json", "[]")])).unwrap_err().to_string();
    assert!(error.contains("podman save"), "{error}");
    let error = flat(&layer(&[F("x", "y")])).unwrap_err().to_string();
    assert!(error.contains("index.json"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_archives_never_panic(at in 0usize..9000, value in any::<u8>()) {
        let layers = [layer(&[F("a", "1"), Dir("d")]), gzip(&layer(&[F("d/.wh..wh..opq", "")]))];
        let bytes = archive(&layers, true, |bytes| {
            let at = at % bytes.len();
            bytes[at] = value;
        });
        let _ = flat(&bytes);
    }

    #[test]
    fn damaged_layers_never_panic(at in 0usize..2048, value in any::<u8>()) {
        let mut bytes = layer(&[F("a", "1"), Link("l", "a"), Hard("h", "a")]);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = flat(&archive(&[bytes], false, |_| {}));
    }
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_oci_archives() {
    let seeds = [
        archive(&[layer(&[Dir("srv"), F("srv/app", "a"), Link("bin", "srv")])], true, |_| ()),
        archive(&[layer(&[F("a", "1")]), gzip(&layer(&[F(".wh.a", "")]))], false, |_| ()),
    ];
    altaz_testkit::fuzz_loop("oci_archive", &seeds, altaz_testkit::fuzz_seconds(), |bytes| {
        let _ = flat(bytes);
    });
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_oci_layers() {
    let entries = [Dir("srv"), F("srv/app", "a"), Link("bin", "srv"), Hard("srv/b", "srv/app")];
    let lowest = layer(&[F("srv/old", "1"), Dir("etc"), F("etc/passwd", "root")]);
    let seeds = [layer(&entries), layer(&[F("srv/.wh..wh..opq", ""), F("etc/.wh.passwd", "")])];
    altaz_testkit::fuzz_loop("oci_layer", &seeds, altaz_testkit::fuzz_seconds(), |bytes| {
        // The archive around the layer is sound, so that the damage gets as far as the layer.
        let archive = archive(&[lowest.clone(), bytes.to_vec()], false, |_| ());
        if let Ok((_, tar)) = flat(&archive) {
            for path in paths(&tar) {
                assert!(!path.split('/').any(|part| part == ".."), "{path} leaves the root");
            }
        }
    });
}
