//! The profile file as its users meet it: writing, reading, and every way in which either fails.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use altaz_profile::file::{self, FileError};
use altaz_profile::*;

fn written(profile: &Profile) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.altaz");
    file::write(profile, &path).unwrap();
    (directory, path)
}

#[test]
fn what_is_written_is_read_back_whole() {
    let profile = common::profile(10_000);
    let (_directory, path) = written(&profile);
    assert_eq!(file::read(&path).unwrap(), profile);
    assert_eq!(file::read_manifest(&path).unwrap(), profile.manifest);
    assert_eq!(file::from_bytes(&fs::read(&path).unwrap()).unwrap(), profile);
}

#[test]
fn a_profile_of_several_row_groups_and_one_of_none_are_read_back() {
    for count in [0, 1, 70_000] {
        let profile = common::profile(count);
        let bytes = file::to_bytes(&profile).unwrap();
        assert!(file::from_bytes(&bytes).unwrap() == profile, "{count} units");
    }
}

#[test]
fn extreme_numbers_and_odd_texts_survive() {
    let mut profile = common::profile(6);
    for (unit, number) in profile.units.iter_mut().zip([0, 1, u64::MAX, 1 << 63, 7, 8]) {
        unit.offset = number;
        unit.size = u64::MAX;
        unit.covered = Some(number);
        unit.line = Some(u32::MAX);
        unit.symbol = "naïve::operator\"\"_ü<'a>\n\0".into();
    }
    let bytes = file::to_bytes(&profile).unwrap();
    assert_eq!(file::from_bytes(&bytes).unwrap(), profile);
}

#[test]
fn an_existing_profile_is_replaced_and_nothing_else_is_left_in_the_directory() {
    let (directory, path) = written(&common::profile(10));
    file::write(&common::profile(20), &path).unwrap();
    assert_eq!(file::read(&path).unwrap().units.len(), 20);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
}

#[test]
fn a_path_that_cannot_be_written_is_named_with_what_to_do() {
    let error = file::write(&common::profile(1), Path::new("/nonexistent/a.altaz")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FileError::Write { .. }), "{text}");
    assert!(text.contains("/nonexistent/a.altaz"), "{text}");
    assert!(text.contains("Create the directory first"), "{text}");
}

#[test]
fn a_missing_file_and_a_directory_are_read_errors_that_name_the_path() {
    for path in [Path::new("/nonexistent.altaz"), Path::new("/tmp")] {
        for error in [file::read(path).unwrap_err(), file::read_manifest(path).unwrap_err()] {
            assert!(matches!(error, FileError::Read { .. }), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }
}

#[test]
fn what_is_no_profile_is_called_that() {
    for bytes in [&b""[..], b"PK\x03\x04 a zip file, say", b"PAR1", b"\x7fELF"] {
        let error = file::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, FileError::NotAProfile { .. }), "{error}");
    }
}

#[test]
fn a_file_cut_short_is_called_damaged() {
    let bytes = file::to_bytes(&common::profile(100)).unwrap();
    let error = file::from_bytes(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(matches!(error, FileError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("cut short"), "{error}");
}

#[test]
fn a_newer_major_schema_is_refused_with_the_way_out_and_a_newer_minor_is_read() {
    // The manifest is in the file as text: another digit keeps every length.
    let with_schema = |schema: &str| {
        let mut profile = common::profile(10);
        profile.manifest.schema = "altaz.profile/1.9".to_owned();
        let bytes = file::to_bytes(&profile).unwrap();
        let at = bytes.windows(17).rposition(|w| w == b"altaz.profile/1.9").unwrap();
        let mut bytes = bytes;
        bytes[at..at + 17].copy_from_slice(schema.as_bytes());
        bytes
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.altaz");
    fs::write(&path, with_schema("altaz.profile/2.0")).unwrap();
    for error in [file::read(&path).unwrap_err(), file::read_manifest(&path).unwrap_err()] {
        let FileError::NewerSchema { found, .. } = &error else { panic!("{error}") };
        assert_eq!(found, "altaz.profile/2.0");
        assert!(error.to_string().contains("newer altaz"), "{error}");
    }
    assert!(file::from_bytes(&with_schema("altaz.profile/1.9")).is_ok());
    let error = file::from_bytes(&with_schema("other.profile/1.0")).unwrap_err();
    assert!(matches!(error, FileError::NotAProfile { .. }), "{error}");
}

#[test]
fn a_profile_that_breaks_a_rule_is_not_written() {
    type Break = fn(&mut Profile);
    let rules: [(&str, Break); 10] = [
        ("no window", |p| p.units[3].windows.clear()),
        ("do not ascend", |p| p.units[3].windows.push(4)),
        ("do not ascend", |p| {
            let last = *p.units[0].windows.last().unwrap();
            p.units[0].windows.push(last);
        }),
        ("first_window", |p| p.units[0].first_window += 1),
        ("of a recording of 68 windows", |p| p.units[0].windows.push(68)),
        ("its phase is `stop`", |p| p.units[0].phase = Phase::Stop),
        ("bytes covered", |p| p.units[0].covered = Some(p.units[0].size + 1)),
        ("no binary", |p| p.units[0].binary = "".into()),
        ("an earlier row", |p| p.units.push(p.units[0].clone())),
        ("ends before it begins", |p| p.manifest.windows[1].end_ns = 0),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.altaz");
    for (words, break_it) in rules {
        let mut profile = common::profile(10);
        break_it(&mut profile);
        let error = file::write(&profile, &path).unwrap_err();
        assert!(matches!(error, FileError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!path.exists());
    }
}
