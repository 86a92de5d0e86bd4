//! Profiles of an earlier `altaz compare` in the same directory, which `--keep` takes instead of measuring again.
//!
//! A profile is taken only when it is of what would be measured now: the service, its image, its load, the
//! deployment and the lab's kernel. Otherwise its reader is told what differs, and it is measured anew.

use std::path::Path;

use altaz_profile::{InstrumentKind, Manifest, Profile, file};

/// What would be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) service: String,
    pub(super) deployment: String,
    pub(super) image_id: String,
    /// The load in words, as in a manifest.
    pub(super) load: String,
    pub(super) requests: u64,
    /// Release of the lab's kernel.
    pub(super) kernel: String,
}

/// What became of an earlier profile.
pub(super) enum Earlier {
    /// It is taken.
    Kept(Box<Profile>),
    /// There is none.
    Missing,
    /// It is of something else, or damaged: why.
    Other(String),
}

/// The earlier profile in a file.
pub(super) fn read(path: &Path, wanted: &Wanted) -> Earlier {
    if !path.exists() {
        return Earlier::Missing;
    }
    // The manifest first: a profile of something else need not be read whole.
    let differs = match file::read_manifest(path) {
        Ok(manifest) => differences(&manifest, wanted),
        Err(error) => return Earlier::Other(error.to_string()),
    };
    if !differs.is_empty() {
        return Earlier::Other(differs.join(", "));
    }
    match file::read(path) {
        Ok(profile) => Earlier::Kept(Box::new(profile)),
        Err(error) => Earlier::Other(error.to_string()),
    }
}

/// In what a recording is not the one that is wanted.
fn differences(manifest: &Manifest, wanted: &Wanted) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, found: &str, wanted: &str| {
        if found != wanted {
            all.push(format!("{what} is `{found}`, not `{wanted}`"));
        }
    };
    compare("its service", &manifest.service, &wanted.service);
    compare("its deployment", &manifest.deployment, &wanted.deployment);
    compare("its version of altaz", &manifest.tool_version, env!("CARGO_PKG_VERSION"));
    compare("its lab's kernel", &manifest.host.kernel, &wanted.kernel);
    let load = manifest.load.as_ref();
    compare("its load", load.map_or("none", |l| &l.description), &wanted.load);
    let requests = load.map_or(0, |l| l.requests);
    if requests != wanted.requests {
        all.push(format!("it has {requests} requests, not {}", wanted.requests));
    }
    if manifest.image_id != wanted.image_id {
        all.push("its service image is another".into());
    }
    if manifest.instrument.kind != InstrumentKind::Exact {
        all.push("it is not of the exact instrument".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::SCHEMA;
    use serde_json::json;

    fn wanted() -> Wanted {
        Wanted {
            service: "web".into(),
            deployment: "runc".into(),
            image_id: "ab".into(),
            load: "GET /, 10/s, 1 connection".into(),
            requests: 600,
            kernel: "6.12".into(),
        }
    }

    fn profile() -> Profile {
        let manifest = serde_json::from_value(json!({
            "schema": SCHEMA, "tool_version": env!("CARGO_PKG_VERSION"),
            "recorded_at": "2026-01-02T03:04:05Z", "service": "web", "deployment": "runc",
            "instrument": { "kind": "exact", "detail": "test" },
            "host": { "kernel": "6.12", "arch": "x86_64", "cpu": "test", "cpus": 2 },
            "image_id": "ab", "layers": [], "boundaries": [], "windows": [],
            "load": {
                "description": "GET /, 10/s, 1 connection", "requests": 600, "errors": 0,
                "p50_ms": null, "p99_ms": null, "rate": null, "ready_s": null
            },
            "blind_spots": [], "calibration": null, "notes": []
        }));
        Profile { manifest: manifest.unwrap(), units: Vec::new() }
    }

    #[test]
    fn the_same_measurement_is_kept_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runc.altaz");
        assert!(matches!(read(&path, &wanted()), Earlier::Missing));
        file::write(&profile(), &path).unwrap();
        assert!(matches!(read(&path, &wanted()), Earlier::Kept(_)));
        let other = Wanted { requests: 60, image_id: "cd".into(), ..wanted() };
        let Earlier::Other(why) = read(&path, &other) else { panic!("kept") };
        assert_eq!(why, "it has 600 requests, not 60, its service image is another");
        let other = Wanted { load: "GET /, 1/s, 1 connection".into(), ..wanted() };
        assert!(matches!(read(&path, &other), Earlier::Other(_)));
    }

    #[test]
    fn a_damaged_one_is_measured_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runc.altaz");
        std::fs::write(&path, "no profile").unwrap();
        assert!(matches!(read(&path, &wanted()), Earlier::Other(_)));
    }
}
