//! What a kernel was built from: its modules, what is built in, its functions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use altaz_profile::inventory::{KernelInventory, KernelModule, Place};
use altaz_symbols::{module_source, module_symbols};
use anyhow::Context as _;
use sha2::{Digest, Sha256};

use super::Depth;
use super::root::Root;

/// Where modules are; `/lib` is a link to `/usr/lib` or the other way round.
const MODULES: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];
/// A module never unpacks to more, in bytes.
const MOST: u64 = 256 << 20;

/// The release of a root's kernel, where it has exactly one.
pub(crate) fn only_release(root: &Root<'_>) -> Option<String> {
    let mut all: BTreeSet<String> = MODULES.iter().flat_map(|m| root.names(m)).collect();
    if all.len() == 1 { all.pop_first() } else { None }
}

/// Reads what a root says of one of its kernels, and what `/proc/kallsyms` of a boot of it said.
pub(crate) fn inventory(
    root: &Root<'_>,
    release: &str,
    kallsyms: Option<&str>,
    depth: Depth,
    place: &Place,
) -> anyhow::Result<KernelInventory> {
    let mut kernel = KernelInventory { release: release.into(), ..KernelInventory::default() };
    let package = format!("linux-image-{release}");
    kernel.package = place.package(&package).map(|p| p.name.clone());
    let functions = kallsyms.map(functions);
    for base in MODULES {
        let directory = format!("{base}/{release}");
        let files = root.below(&directory, ".ko");
        if files.is_empty() {
            continue;
        }
        for path in &files {
            let Some((name, source)) = module_source(path) else { continue };
            let listed = match depth {
                Depth::Modules => Vec::new(),
                Depth::Functions => {
                    let bytes = root.bytes(path)?.unwrap_or_default();
                    let bytes = unpack(path, bytes)?;
                    module_symbols::functions(&bytes)
                        .with_context(|| format!("cannot read the module {path}"))?
                }
            };
            let loaded = functions.as_ref().map(|f| f.contains_key(name.as_str()));
            let directory = source.to_owned();
            kernel.modules.push(KernelModule { name, directory, loaded, functions: listed });
        }
        if let Some(text) = root.text(&format!("{directory}/modules.builtin"))? {
            let path = |l: &str| Some(l.strip_prefix("kernel/")?.strip_suffix(".ko")?.to_owned());
            kernel.builtin = text.lines().filter_map(path).collect();
        }
        break;
    }
    if let Some(config) = root.bytes(&format!("/boot/config-{release}"))? {
        let digest = Sha256::digest(&config);
        kernel.config_sha256 = Some(digest.iter().map(|b| format!("{b:02x}")).collect());
    }
    if let Some(core) = functions.and_then(|mut f| f.remove("")) {
        kernel.functions = core.into_iter().map(str::to_owned).collect();
        kernel.lists_all_functions = depth == Depth::Functions && !kernel.functions.is_empty();
    }
    Ok(kernel)
}

/// Functions of `/proc/kallsyms` by module; the kernel's own under the empty name.
fn functions(kallsyms: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in kallsyms.lines() {
        let mut parts = line.split_ascii_whitespace();
        let (Some(_), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let module = parts.next().map_or("", |m| m.trim_matches(['[', ']']));
        let known = all.entry(module).or_default();
        if matches!(kind, "t" | "T" | "w" | "W") {
            known.insert(name);
        }
    }
    all
}

fn unpack(path: &str, bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let what = || format!("cannot unpack the module {path}");
    let mut out = Vec::new();
    if path.ends_with(".xz") {
        lzma_rs::xz_decompress(&mut &bytes[..], &mut out)
            .map_err(|e| anyhow::anyhow!("{e:?}"))
            .with_context(what)?;
        return Ok(out);
    }
    if path.ends_with(".zst") {
        let reader = zstd::Decoder::new(&bytes[..]).with_context(what)?;
        reader.take(MOST).read_to_end(&mut out).with_context(what)?;
        return Ok(out);
    }
    if path.ends_with(".gz") {
        let reader = flate2::read::MultiGzDecoder::new(&bytes[..]);
        reader.take(MOST).read_to_end(&mut out).with_context(what)?;
        return Ok(out);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_modules_are_listed_with_their_directories_and_whether_they_were_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("usr/lib/modules/6.12.1/kernel/drivers/net/tap.ko.xz", "");
        write("usr/lib/modules/6.12.1/kernel/net/ipv6/ip6-tunnel.ko", "");
        write("usr/lib/modules/6.12.1/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        write("boot/config-6.12.1", "CONFIG_X=y\n");
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(only_release(&root).as_deref(), Some("6.12.1"));
        let symbols = "0 T schedule\n0 t add_grec\n0 D data\n0 t tap_get_user\t[tap]\n";
        let place = Place::default();
        let k = inventory(&root, "6.12.1", Some(symbols), Depth::Modules, &place).unwrap();
        let modules: Vec<_> =
            k.modules.iter().map(|m| (&*m.name, &*m.directory, m.loaded)).collect();
        assert_eq!(
            modules,
            [("tap", "drivers/net", Some(true)), ("ip6_tunnel", "net/ipv6", Some(false))]
        );
        assert_eq!(k.builtin, ["fs/ext4/ext4"]);
        assert_eq!(k.functions, ["add_grec", "schedule"]);
        assert_eq!(k.config_sha256.map(|d| d.len()), Some(64));
        // A module that is none is an error that names it.
        let error = inventory(&root, "6.12.1", None, Depth::Functions, &place).unwrap_err();
        assert!(format!("{error:#}").contains("tap.ko.xz"), "{error:#}");
    }
}
