//! Takes the pictures of the docs from a page that `altaz compare` wrote: `pictures PAGE DIRECTORY`.

#![allow(clippy::unwrap_used, reason = "a tool of the repository fails by panicking")]

use std::path::PathBuf;

use altaz_e2e::browser::Browser;

/// Width of the page, pixels.
const WIDTH: u32 = 960;
/// The largest that a picture may be, bytes.
const LARGEST: usize = 200_000;

/// Name of a picture, what it shows, and whether on a dark screen.
const PICTURES: &[(&str, &str, bool)] = &[
    ("stacks", "#stacks figcaption, #stacks .legend, #stacks .stacks", false),
    ("profiles", "#profiles", false),
    ("profiles-dark", "#profiles", true),
    ("paths", "#paths", false),
    ("risk", "#risk", false),
    ("growth", "#growth", false),
    ("treemap", "#deployment-2 .explorer", true),
];

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(page), Some(to)) = (args.next(), args.next()) else {
        panic!("usage: pictures PAGE DIRECTORY");
    };
    std::fs::create_dir_all(&to).unwrap();
    let mut browser = Browser::open(&page, WIDTH);
    for (name, selector, dark) in PICTURES {
        let there = format!("document.querySelector('{selector}') !== null");
        if browser.eval(&there) != true {
            eprintln!("{name}: the page has none");
            continue;
        }
        browser.dark(*dark);
        let scales = [1.0, 0.9, 0.8, 0.7, 0.6];
        let small = |p: &Vec<u8>| p.len() <= LARGEST;
        let picture = scales.into_iter().map(|s| browser.picture(selector, s)).find(small);
        let picture = picture.unwrap_or_else(|| panic!("{name} takes more than {LARGEST} bytes"));
        std::fs::write(to.join(format!("report-{name}.png")), &picture).unwrap();
        eprintln!("report-{name}.png: {} bytes", picture.len());
    }
}
