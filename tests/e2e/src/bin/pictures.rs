//! Takes the pictures of the docs from a page that `altaz compare` wrote: `pictures PAGE DIRECTORY`.
//!
//! They are kept with 256 colours each: hatched areas and smoothed letters in all colours take three times the room.

#![allow(clippy::unwrap_used, reason = "a tool of the repository fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use altaz_e2e::browser::Browser;
use color_quant::NeuQuant;

/// Width of the page, pixels.
const WIDTH: u32 = 960;
/// Every pixel is looked at when colours are chosen: rare ones are letters.
const EVERY_PIXEL: i32 = 1;
const COLOURS: usize = 256;
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
        let picture =
            scales.into_iter().map(|s| few_colours(&browser.picture(selector, s))).find(small);
        let picture = picture.unwrap_or_else(|| panic!("{name} takes more than {LARGEST} bytes"));
        std::fs::write(to.join(format!("report-{name}.png")), &picture).unwrap();
        eprintln!("report-{name}.png: {} bytes", picture.len());
    }
}

/// The same picture with a palette.
fn few_colours(picture: &[u8]) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(picture));
    decoder.set_transformations(
        png::Transformations::normalize_to_color8() | png::Transformations::ALPHA,
    );
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(frame.color_type, png::ColorType::Rgba);
    pixels.truncate(frame.buffer_size());
    let colours = NeuQuant::new(EVERY_PIXEL, COLOURS, &pixels);
    // Finding the nearest colour is slow, and most pixels are alike.
    let mut nearest = HashMap::new();
    let (pixels, _) = pixels.as_chunks::<4>();
    let indices: Vec<u8> = pixels
        .iter()
        .map(|pixel| *nearest.entry(*pixel).or_insert_with(|| colours.index_of(pixel) as u8))
        .collect();
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, frame.width, frame.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(colours.color_map_rgb());
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&indices).unwrap();
    writer.finish().unwrap();
    out
}
