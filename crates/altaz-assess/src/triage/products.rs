//! Installed components by the names that the world knows them by: package URLs
//! (<https://github.com/package-url/purl-spec>) and CPE 2.3.

use altaz_profile::inventory::{Package, Place};
use altaz_profile::results::triage::Product;
use altaz_profile::version::debian_upstream;
use altaz_profile::vulnerability::{Affected, VersionEnd};
use altaz_profile::{Layer, Manifest, Owner};

/// Source package of a binary one, as trackers name it: a signed kernel's source is `linux`.
pub fn source(package: &Package) -> &str {
    if package.source.starts_with("linux-signed-") { "linux" } else { &package.source }
}

/// Version of that source package.
pub fn source_version(package: &Package) -> &str {
    if package.source.starts_with("linux-signed-") {
        &package.version
    } else {
        &package.source_version
    }
}

/// Percent-encodes what a purl's component may not hold.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b".-_~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Package URL of an installed Debian package.
pub fn deb_purl(package: &Package, place: &Place) -> String {
    let distribution = place.distribution.as_deref().unwrap_or("debian");
    let release =
        place.codename.as_deref().map_or(String::new(), |c| format!("&distro={}", encode(c)));
    format!(
        "pkg:deb/{}/{}@{}?arch={}{release}",
        encode(distribution),
        encode(&package.name.to_lowercase()),
        encode(&package.version),
        encode(&package.arch)
    )
}

/// CPE of a Linux kernel.
fn kernel_cpe(upstream: &str) -> String {
    format!("cpe:2.3:o:linux:linux_kernel:{upstream}:*:*:*:*:*:*:*")
}

/// Who must fix the code of these layers, where one owner does.
pub fn owner(manifest: &Manifest, layers: &[Layer]) -> Option<Owner> {
    let of = |layer: &Layer| manifest.layers.iter().find(|l| l.name == *layer).map(|l| l.owner);
    let mut owners = layers.iter().filter_map(of);
    let first = owners.next()?;
    owners.all(|o| o == first).then_some(first)
}

/// A kernel layer's kernel.
pub fn kernel(
    manifest: &Manifest,
    place: Option<&Place>,
    package: Option<&Package>,
    upstream: Option<&str>,
    release: &str,
    layer: Layer,
) -> Product {
    let (purl, name, version) = match (place, package) {
        (Some(place), Some(p)) => (deb_purl(p, place), p.name.clone(), p.version.clone()),
        _ => {
            let version = upstream.unwrap_or(release);
            let purl = format!("pkg:generic/linux@{}", encode(version));
            (purl, "linux".to_owned(), version.to_owned())
        }
    };
    Product {
        purl,
        cpe: upstream.map(kernel_cpe),
        name,
        version,
        place: place.map_or_else(|| "host".to_owned(), |p| p.name.clone()),
        layers: vec![layer],
        owner: owner(manifest, &[layer]),
    }
}

/// An installed package.
pub fn package(
    manifest: &Manifest,
    place: &Place,
    package: &Package,
    layers: Vec<Layer>,
) -> Product {
    let all = if layers.is_empty() { place.layers.clone() } else { layers.clone() };
    Product {
        purl: deb_purl(package, place),
        cpe: None,
        name: package.name.clone(),
        version: package.version.clone(),
        place: place.name.clone(),
        owner: owner(manifest, &all),
        layers,
    }
}

/// Whether a source package is the one of a Go module or a crate, by its name.
pub fn is_module_of(source: &str, module: &str) -> bool {
    let mut parts: Vec<&str> = module.split('/').collect();
    let version = |p: &&str| p.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
    if parts.last().is_some_and(version) && parts.len() > 1 {
        parts.pop();
    }
    let last = parts.last().copied().unwrap_or_default();
    if source == last || source.strip_prefix("rust-") == Some(last) {
        return true;
    }
    // golang-github-opencontainers-runc, golang-gvisor-gvisor.
    let Some(rest) = source.strip_prefix("golang-") else { return false };
    let host = parts.first().map(|h| h.split('.').next().unwrap_or(h)).unwrap_or_default();
    let dashed = parts.get(1..).unwrap_or_default().join("-");
    rest == format!("{host}-{dashed}")
}

/// Whether a Go module's path is the one of this version: `/v5` at its end is the major number; a
/// path without one is of 0 and 1, and of any where its ranges name later ones (`+incompatible`).
pub fn is_major_of(affected: &Affected, upstream: &str) -> bool {
    let major = |version: &str| {
        version.trim_start_matches('v').split(['.', '-', '+']).next()?.parse::<u32>().ok()
    };
    let Some(own) = major(upstream) else { return true };
    let last = affected.package.rsplit('/').next().unwrap_or_default();
    match last.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()) {
        Some(path) => path == own,
        None => {
            let named = affected.versions.iter().flat_map(|v| &v.rules).flat_map(|r| {
                let end = match &r.to {
                    VersionEnd::Below(end) | VersionEnd::Upto(end) => Some(end.as_str()),
                    VersionEnd::Only | VersionEnd::Open => None,
                };
                r.from.as_deref().into_iter().chain(end)
            });
            own < 2 || named.filter_map(major).any(|m| m >= 2)
        }
    }
}

/// Upstream's version of a package.
pub fn upstream(package: &Package) -> String {
    debian_upstream(source_version(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purl_encodes_what_it_must() {
        let package = Package {
            name: "linux-image-6.12.117+deb13-cloud-amd64".into(),
            version: "1:6.12.117-1".into(),
            arch: "amd64".into(),
            source: "linux-signed-amd64".into(),
            source_version: "6.12.117+1".into(),
        };
        let place = Place {
            distribution: Some("debian".into()),
            codename: Some("trixie".into()),
            ..Place::default()
        };
        assert_eq!(
            deb_purl(&package, &place),
            "pkg:deb/debian/linux-image-6.12.117%2Bdeb13-cloud-amd64@1%3A6.12.117-1?arch=amd64&distro=trixie"
        );
        assert_eq!((source(&package), source_version(&package)), ("linux", "1:6.12.117-1"));
    }

    #[test]
    fn a_modules_major_number_is_in_its_path() {
        use altaz_profile::version::Scheme;
        use altaz_profile::vulnerability::{Ecosystem, Versions};
        let of = |path: &str, fixed: Option<&str>, version: &str| {
            let mut a = Affected::new("osv", Ecosystem::Go, path);
            a.versions = Some(Versions::until(Scheme::Semver, None, fixed));
            is_major_of(&a, version)
        };
        assert!(of("github.com/containers/podman/v5", None, "5.4.2"));
        assert!(!of("github.com/containers/podman/v4", None, "5.4.2"));
        assert!(!of("github.com/containers/podman", Some("1.9.0"), "5.4.2"));
        assert!(of("github.com/docker/docker", Some("20.10.9"), "26.1.5"));
        assert!(of("github.com/opencontainers/runc", None, "1.1.15"));
    }

    #[test]
    fn source_packages_of_modules_are_known_by_name() {
        assert!(is_module_of("runc", "github.com/opencontainers/runc"));
        assert!(is_module_of("golang-gvisor-gvisor", "gvisor.dev/gvisor"));
        assert!(is_module_of("golang-github-containerd-console", "github.com/containerd/console"));
        assert!(is_module_of("containerd", "github.com/containerd/containerd/v2"));
        assert!(is_module_of("rust-wasmtime", "wasmtime"));
        assert!(!is_module_of("runc", "github.com/docker/docker"));
    }
}
