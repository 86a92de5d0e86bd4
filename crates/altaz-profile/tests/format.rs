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
fn what_1_1_added_is_absent_from_a_manifest_of_1_0_and_reads_as_nothing() {
    let mut json = serde_json::to_value(common::live(40).manifest).unwrap();
    json["schema"] = "altaz.profile/1.0".into();
    json.as_object_mut().unwrap().remove("posture").unwrap();
    let boundary = json["boundaries"][0].as_object_mut().unwrap();
    boundary.remove("permitted_entries").unwrap();
    boundary["entries"][0].as_object_mut().unwrap().remove("by_process").unwrap();
    let manifest: altaz_profile::Manifest = serde_json::from_value(json).unwrap();
    assert_eq!(manifest.posture, []);
    assert_eq!(manifest.boundaries[0].permitted_entries, []);
    assert_eq!(manifest.boundaries[0].entries[0].by_process, []);
}

#[test]
fn a_profile_of_version_1_1_reads_as_it_was_written() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let path = fixtures.join("profile-1.1.altaz");
    let mut expected = common::live(40);
    expected.manifest.schema = "altaz.profile/1.1".to_owned();
    assert_eq!(file::read(&path).unwrap(), expected);
    assert_eq!(file::read_manifest(&path).unwrap(), expected.manifest);
}

#[test]
fn the_same_profile_is_the_same_bytes() {
    let bytes = || file::to_bytes(&common::profile(5_000)).unwrap();
    assert_eq!(bytes(), bytes());
}
