//! Debian's package database: `status`, and the lists of files. Text in, values out.

use altaz_profile::inventory::Package;

/// Installed packages of a `status` file.
pub(crate) fn packages(status: &str) -> Vec<Package> {
    let mut all: Vec<Package> = status.split("\n\n").filter_map(package).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.arch.cmp(&b.arch)));
    all
}

fn package(paragraph: &str) -> Option<Package> {
    let field = |name: &str| {
        paragraph.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    // "install ok installed"; what was removed keeps a paragraph.
    if field("Status")?.split(' ').next_back() != Some("installed") {
        return None;
    }
    let (name, version) = (field("Package")?, field("Version")?);
    // "Source: linux-signed-amd64 (6.12.117+1)"; without it both are the package's own.
    let (source, source_version) = match field("Source") {
        None => (name, version),
        Some(text) => match text.split_once(" (") {
            Some((source, version)) => (source, version.trim_end_matches(')')),
            None => (text, version),
        },
    };
    Some(Package {
        name: name.into(),
        version: version.into(),
        arch: field("Architecture").unwrap_or_default().into(),
        source: source.into(),
        source_version: source_version.into(),
    })
}

/// Paths of a package's list that can hold code.
pub(crate) fn code_files(list: &str) -> impl Iterator<Item = &str> {
    const PLACES: [&str; 4] = ["/bin/", "/sbin/", "/libexec/", "/lib/"];
    list.lines().filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let data = ["/share/", "/modules/", "/doc/", "/include/"].iter().any(|d| path.contains(d));
        let text = [".py", ".conf", ".pl", ".pm", ".h", ".gz", ".txt", ".service"]
            .iter()
            .any(|e| name.ends_with(e));
        !data && !text && PLACES.iter().any(|p| path.contains(p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_have_their_source_and_its_version() {
        let status = "Package: linux-image-6.12.117+deb13-cloud-amd64\nStatus: install ok installed\n\
            Architecture: amd64\nSource: linux-signed-amd64 (6.12.117+1)\nVersion: 6.12.117-1\n\
            Description: x\n Version: no field\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.26.3-3\n";
        let all = packages(status);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].source.as_str(), all[0].source_version.as_str()),
            ("linux-signed-amd64", "6.12.117+1")
        );
        assert_eq!((all[1].source.as_str(), all[1].source_version.as_str()), ("nginx", "1.26.3-3"));
    }

    #[test]
    fn only_paths_that_can_hold_code_are_kept() {
        let list = "/.\n/usr\n/usr/sbin/nginx\n/usr/share/doc/nginx/copyright\n/usr/lib/x86_64-linux-gnu/libz.so.1\n\
            /usr/lib/python3/dist-packages/flask/app.py\n/usr/lib/modules/6.1/kernel/a.ko\n";
        let kept: Vec<&str> = code_files(list).collect();
        assert_eq!(kept, ["/usr/sbin/nginx", "/usr/lib/x86_64-linux-gnu/libz.so.1"]);
    }
}
