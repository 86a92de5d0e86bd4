//! Every version of the format that was ever released stays readable: a file of each is kept.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::path::Path;

use altaz_profile::file;

#[test]
fn a_profile_of_version_1_0_reads_as_it_was_written() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let path = fixtures.join("profile-1.0.altaz");
    let mut expected = common::profile(40);
    expected.manifest.schema = "altaz.profile/1.0".to_owned();
    assert_eq!(file::read(&path).unwrap(), expected);
    assert_eq!(file::read_manifest(&path).unwrap(), expected.manifest);
}

#[test]
fn the_same_profile_is_the_same_bytes() {
    let bytes = || file::to_bytes(&common::profile(5_000)).unwrap();
    assert_eq!(bytes(), bytes());
}
