//! Writes a small synthetic profile: the fixture of the format's test, and something to try other
//! readers on.
//!
//!     cargo run -p altaz-profile --example write_fixture -- tests/fixtures/profile-1.1.altaz

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod common;

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "give the path of the profile to write, and perhaps the number of units";
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or(usage)?;
    let units = arguments.next().map_or(Ok(40), |text| text.parse())?;
    altaz_profile::file::write(&common::live(units), Path::new(&path))?;
    Ok(())
}
