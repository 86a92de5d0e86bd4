//! Mutations of the lab's control stream and of image archives, for `ALTAZ_FUZZ_SECONDS` seconds
//! each (`make fuzz`): no panic, and no file of an archive lies outside it or leaves its root.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use altaz_lab::TarFiles;
use altaz_lab::protocol::{
    Event, ExitStatus, Hello, Reply, Request, RequestBody, RunRequest, read_frame, write_frame,
};
use altaz_testkit::{fuzz_loop, fuzz_seconds};

fn replies() -> Vec<u8> {
    let hello = Hello {
        protocol: 1,
        kernel_release: "6.12".into(),
        kernel_version: "#1".into(),
        machine: "x86_64".into(),
        cpu: "emulated".into(),
        cpus: 2,
        memory_kib: 1 << 20,
        boot_seconds: 2.5,
    };
    let mut bytes = Vec::new();
    let events = [
        Event::Hello(hello),
        Event::Stdout,
        Event::Exit(ExitStatus::Signal(9)),
        Event::Done(serde_json::json!({ "a": [1, 2.5, null, "b"] })),
        Event::Failed("no".into()),
    ];
    for (id, event) in events.into_iter().enumerate() {
        write_frame(&mut bytes, &Reply { id: id as u64, event }, b"some data").unwrap();
    }
    bytes
}

fn requests() -> Vec<u8> {
    let run = RunRequest {
        argv: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec![("A".into(), "b".into())],
        tty: Some((24, 80)),
        ..RunRequest::default()
    };
    let deploy =
        RequestBody::DeployStart { deployment: "runc".into(), spec: serde_json::json!({}) };
    let mut bytes = Vec::new();
    for (id, body) in [RequestBody::Run(run), deploy, RequestBody::Poweroff].into_iter().enumerate()
    {
        write_frame(&mut bytes, &Request { id: id as u64, body }, &[7; 100]).unwrap();
    }
    bytes
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_lab_protocol() {
    fuzz_loop("lab_protocol", &[replies(), requests()], fuzz_seconds(), |bytes| {
        let mut rest = bytes;
        while let Ok(Some((reply, blob))) = read_frame::<_, Reply>(&mut rest) {
            let mut again = Vec::new();
            write_frame(&mut again, &reply, &blob).unwrap();
        }
        let mut rest = bytes;
        while let Ok(Some(_)) = read_frame::<_, Request>(&mut rest) {}
    });
}

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind, path: &str, link: Option<&str>, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, path, data).unwrap();
    };
    add(tar::EntryType::Directory, "usr/", None, b"");
    add(tar::EntryType::Regular, "usr/file", None, &[b'x'; 1000]);
    add(tar::EntryType::Symlink, "bin", Some("usr"), b"");
    add(tar::EntryType::Link, "usr/other", Some("usr/file"), b"");
    add(tar::EntryType::Regular, &format!("{}/deep", "long/".repeat(40)), None, b"data");
    tar.into_inner().unwrap()
}

#[test]
#[ignore = "runs for ALTAZ_FUZZ_SECONDS per decoder: make fuzz"]
fn fuzz_image_archives() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fuzz_loop("tar", &[archive()], fuzz_seconds(), |bytes| {
        std::fs::write(file.path(), bytes).unwrap();
        let Ok(tar) = TarFiles::open(file.path()) else { return };
        for file in tar.files() {
            assert!(file.path.starts_with('/'));
            let _ = tar.read(file.path);
            // A length that the archive claims is not memory that is taken.
            let _ = tar.read_at(file.offset, &mut [0; 16]);
        }
        let _ = tar.find("/bin/file");
    });
}
