//! `altaz inventory`, and what a recording notes of installed software: packages with their versions,
//! the files that belong to them, and what the kernel was built from.
//!
//! A root file system is a directory or a tar archive of one; it is read, never run. Debian's package
//! database is understood; of others the kernel's modules alone.

mod dpkg;
mod kernel;
mod root;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use altaz_lab::tarfiles::TarFiles;
use altaz_profile::inventory::{INVENTORY_SCHEMA, Inventory, Place};
use altaz_profile::{Layer, Unit};
use anyhow::Context as _;

use crate::cli::{Context, InventoryArgs};
use crate::exit::Exit;
use crate::output::{write_file, write_stdout};

use self::root::Root;

/// How much is listed of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Its modules.
    Modules,
    /// All functions of each module as well: every module is unpacked, which takes seconds.
    Functions,
}

/// Layers whose code comes from the service's image.
const SERVICE: [Layer; 4] =
    [Layer::App, Layer::Library, Layer::LanguageRuntime, Layer::GuestUserland];

pub(crate) fn run(args: &InventoryArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let kallsyms = match &args.kallsyms {
        Some(path) => Some(path.clone()),
        None if args.host == Path::new("/") => Some("/proc/kallsyms".into()),
        None => None,
    };
    let kallsyms = kallsyms
        .map(|path| {
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        })
        .transpose()?;
    let step = cx.ui.step("reading the package database and the kernel's modules", None);
    let host = Root::open(&args.host)?;
    let mut places = vec![host_place(&host, args.service.is_some(), kallsyms.as_deref(), args)?];
    if let Some(path) = &args.service {
        let mut place = place(&Root::open(path)?, "service image")?;
        place.layers = SERVICE.to_vec();
        places.push(place);
    }
    step.done("");
    for p in &places {
        if p.packages.is_empty() {
            cx.ui.warn(&format!("{}: no package database that altaz knows (dpkg's)", p.name));
        }
    }
    let inventory = Inventory { schema: INVENTORY_SCHEMA.into(), places };
    let mut text = serde_json::to_string(&inventory).context("the inventory as JSON")?;
    text.push('\n');
    match &args.output {
        Some(path) => {
            write_file(path, text.as_bytes())?;
            cx.ui.note(&format!("wrote {}", path.display()));
        }
        None => write_stdout(&text)?,
    }
    Ok(Exit::Fine.into())
}

fn host_place(
    host: &Root<'_>,
    service: bool,
    kallsyms: Option<&str>,
    args: &InventoryArgs,
) -> anyhow::Result<Place> {
    let mut place = place(host, "host")?;
    place.layers = host_layers(service);
    let depth = if args.functions { Depth::Functions } else { Depth::Modules };
    let release = match &args.release {
        Some(release) => Some(release.clone()),
        None if args.host == Path::new("/") => {
            Some(rustix::system::uname().release().to_string_lossy().into_owned())
        }
        None => kernel::only_release(host),
    };
    if let Some(release) = release {
        place.kernel = Some(kernel::inventory(host, &release, kallsyms, depth, &place)?);
    }
    Ok(place)
}

fn host_layers(service: bool) -> Vec<Layer> {
    Layer::ALL.iter().copied().filter(|l| !service || !SERVICE.contains(l)).collect()
}

/// Distribution and packages of a root.
fn place(root: &Root<'_>, name: &str) -> anyhow::Result<Place> {
    let mut place = Place { name: name.into(), ..Place::default() };
    let release = root.text("/usr/lib/os-release")?.or(root.text("/etc/os-release")?);
    for line in release.unwrap_or_default().lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = Some(value.trim_matches(['"', '\'']).to_owned());
        match key {
            "ID" => place.distribution = value,
            "VERSION_ID" => place.version = value,
            "VERSION_CODENAME" => place.codename = value,
            _ => {}
        }
    }
    if let Some(status) = root.text("/var/lib/dpkg/status")? {
        place.packages = dpkg::packages(&status);
        for (package, list) in root.lists()? {
            for file in dpkg::code_files(&list) {
                place.files.insert(file.to_owned(), package.clone());
            }
        }
    }
    Ok(place)
}

/// What the lab and the service's images hold (of a pod several), for a profile's manifest.
pub(crate) fn of_lab(
    lab: &TarFiles,
    services: &[&TarFiles],
    release: &str,
    kallsyms: &str,
) -> anyhow::Result<Vec<Place>> {
    let lab = Root::Tar(root::Archive::Borrowed(lab));
    let mut host = place(&lab, "host")?;
    host.layers = host_layers(true);
    host.kernel = Some(kernel::inventory(&lab, release, Some(kallsyms), Depth::Modules, &host)?);
    let mut places = vec![host.compact()];
    for service in services {
        let mut image = place(&Root::Tar(root::Archive::Borrowed(service)), "service image")?;
        image.layers = SERVICE.to_vec();
        places.push(image);
    }
    Ok(places)
}

/// What is installed on this machine, for the manifest of what was recorded on it. A container's own
/// root is not looked into: then the service's layers belong to no place.
pub(crate) fn of_this_machine(deployment: &str) -> anyhow::Result<Vec<Place>> {
    let root = Root::open(Path::new("/"))?;
    let mut host = place(&root, "host")?;
    host.layers = host_layers(deployment != "process");
    // A guest's kernel is its image's.
    host.layers.retain(|l| *l != Layer::GuestKernel);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kallsyms = std::fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
    let kernel = kernel::inventory(&root, &release, Some(&kallsyms), Depth::Modules, &host)?;
    host.kernel = Some(kernel);
    Ok(vec![host.compact()])
}

/// Leaves out the files of which a profile has no row.
pub(crate) fn keep_files(places: &mut [Place], units: &[Unit]) {
    let seen: BTreeSet<&str> = units.iter().map(|u| &*u.binary).collect();
    let wanted = |path: &str| {
        let other = path.strip_prefix("/usr").map_or_else(|| format!("/usr{path}"), str::to_owned);
        seen.contains(path) || seen.contains(other.as_str())
    };
    for place in places {
        place.files.retain(|path, _| wanted(path));
    }
}

/// An inventory from its file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Place>> {
    let what = || format!("cannot read the inventory {}", path.display());
    let bytes = std::fs::read(path).with_context(what)?;
    let inventory: Inventory = serde_json::from_slice(&bytes).with_context(what)?;
    if inventory.schema != INVENTORY_SCHEMA {
        anyhow::bail!(
            "{}: it is of the form `{}`, this altaz reads `{INVENTORY_SCHEMA}`",
            what(),
            inventory.schema
        );
    }
    Ok(inventory.places)
}
