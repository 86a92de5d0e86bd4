//! Writes a profile with some layers of another, for fixtures:
//! `cargo run -p altaz-profile --example keep_layers -- IN OUT LAYER…`. Rows of other layers and of
//! background are left out, and so is what is installed for them; everything else stays as recorded.

#![allow(clippy::unwrap_used, reason = "a tool for those who write fixtures")]

use std::path::PathBuf;

use altaz_profile::{Layer, Phase, file};

fn main() {
    let mut args = std::env::args().skip(1);
    let (from, to) = (PathBuf::from(args.next().unwrap()), PathBuf::from(args.next().unwrap()));
    let keep: Vec<Layer> = args.map(|name| Layer::parse(&name).unwrap()).collect();
    let mut profile = file::read(&from).unwrap();
    profile.units.retain(|u| {
        keep.contains(&u.layer) && matches!(u.phase, Phase::Start | Phase::Serve | Phase::Stop)
    });
    for place in &mut profile.manifest.packages {
        let kernel = place.kernel.as_ref().and_then(|k| k.package.clone());
        place.packages.retain(|p| Some(&p.name) == kernel.as_ref());
        place.files.clear();
    }
    profile.manifest.packages.retain(|p| p.layers.iter().any(|l| keep.contains(l)));
    file::write(&profile, &to).unwrap();
    println!("{} functions", profile.units.len());
}
