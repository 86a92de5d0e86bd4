//! Prints what altaz knows of binaries, or of a kernel, to compare it with other tools:
//!
//! ```sh
//! cargo run --release -p altaz-symbols --example inspect -- /usr/bin/runsc /lib/x86_64-linux-gnu/libc.so.6
//! cargo run --release -p altaz-symbols --example inspect -- --kernel /boot/vmlinuz-… kallsyms.txt
//! ```

use altaz_symbols::{
    Binary, Certainty, FunctionKind, Kallsyms, SourceMap, decompress_kernel, kernel_version,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--kernel", image, kallsyms] => kernel(image, kallsyms),
        ref files => files.iter().try_for_each(|path| binary(path)),
    }
}

fn binary(path: &str) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let started = Instant::now();
    let binary = Binary::parse(&bytes)?;
    let took = started.elapsed();
    println!(
        "{path}: {:?} {:?}, build-id {:?}, read in {took:?}",
        binary.kind, binary.language, binary.build_id
    );
    let mut kinds: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for f in &binary.functions {
        let part = match (f.part, f.parent) {
            (false, _) => "",
            (true, Some(_)) => ", part of a known function",
            (true, None) => ", part of an unknown function",
        };
        let entry = kinds.entry(format!("{:?}{part}", f.kind)).or_default();
        *entry = (entry.0 + 1, entry.1 + f.size);
    }
    for (kind, (count, size)) in kinds {
        println!("  {kind}: {count}, {size} bytes");
    }
    for gap in binary.functions.iter().filter(|f| f.kind == FunctionKind::Gap && f.size > 1000) {
        println!("  {}: {} bytes", gap.name, gap.size);
    }
    Ok(())
}

fn kernel(image: &str, kallsyms: &str) -> Result<(), Box<dyn Error>> {
    let image = std::fs::read(image)?;
    println!("{}", kernel_version(&image).unwrap_or("no version in the header"));
    let vmlinux = decompress_kernel(&image)?;
    let kallsyms = Kallsyms::parse(&std::fs::read_to_string(kallsyms)?)?;
    let started = Instant::now();
    let map = SourceMap::new(&vmlinux, &kallsyms)?;
    println!("{} anchors, read in {:?}", map.anchors(), started.elapsed());
    let mut counts = BTreeMap::new();
    for f in kallsyms.iter().filter(|f| f.module.is_none() && !f.name.starts_with("__pfx_")) {
        let source = map.source(f.offset_from_base);
        let known = match source.map(|s| s.certainty) {
            Some(Certainty::Exact) => "file",
            Some(Certainty::Estimated) => "directory",
            None => "unknown",
        };
        *counts.entry(known).or_insert(0) += 1;
        println!(
            "{:#10x} {:40} {}",
            f.offset_from_base,
            f.name,
            source.map(|s| s.label()).unwrap_or_default()
        );
    }
    println!("{counts:?}");
    Ok(())
}
