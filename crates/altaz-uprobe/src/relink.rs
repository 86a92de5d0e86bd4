//! Links of many probes in one file: attach what the kernel takes, leave out what it refuses.
//!
//! The kernel takes all places of a link or none, and does not say which one it refused, so refused ones are found by
//! halving. No choice of places is made here.

use crate::UprobeError;
use altaz_bpf::BpfError;
use altaz_bpf::link::{Link, ProbeAt};
use altaz_bpf::program::Program;
use std::path::Path;

/// Refusals after which a file is given up: the allowlist should leave none.
const MOST_REFUSED: usize = 256;

/// A link and what it does not hold.
#[derive(Debug)]
pub(crate) struct Linked<L = Link> {
    /// Nothing when no probe is left.
    pub link: Option<L>,
    /// Cookies of the probes that the kernel refused.
    pub refused: Vec<u64>,
}

/// Whether the kernel refused an instruction, rather than the link or its user.
pub(crate) fn is_about_the_instruction(error: &BpfError) -> bool {
    match error {
        BpfError::BadInstruction { .. } => true,
        // It could not be decoded or read.
        BpfError::System { source, .. } => {
            matches!(source.raw_os_error(), Some(libc::ENOEXEC | libc::EIO))
        }
        _ => false,
    }
}

/// One link of all probes that the kernel takes, in one process or in all. `file` is opened; `name` is what errors
/// call it.
pub(crate) fn link_what_the_kernel_takes(
    program: &Program,
    file: &Path,
    name: &Path,
    probes: &[ProbeAt],
    process: Option<u32>,
) -> Result<Linked, UprobeError> {
    link_with(|probes| Link::uprobe_multi(program, file, probes, process), name, probes)
}

fn link_with<L>(
    attach: impl Fn(&[ProbeAt]) -> Result<L, BpfError>,
    name: &Path,
    probes: &[ProbeAt],
) -> Result<Linked<L>, UprobeError> {
    let mut good = probes.to_vec();
    let mut refused = Vec::new();
    while !good.is_empty() {
        let error = match attach(&good) {
            Ok(link) => return Ok(Linked { link: Some(link), refused }),
            Err(error) => error,
        };
        let mut found = Vec::new();
        if let Err(error) = find(&attach, &good, error, &mut found) {
            let path = name.to_path_buf();
            return Err(if is_about_the_instruction(&error) {
                UprobeError::ManyRefused { path, refused: found.len(), source: error }
            } else {
                let what = format!("{}: {} probes", name.display(), good.len());
                UprobeError::Bpf { what, source: error }
            });
        }
        // None: it was refused as a whole and then taken in halves; the next attempt tells.
        good.retain(|probe| !found.contains(&probe.cookie));
        refused.append(&mut found);
    }
    Ok(Linked { link: None, refused })
}

/// Adds to `refused` the cookies of those probes that are refused alone; `error` is how all of them were refused.
/// Links made on the way are dropped at once.
fn find<L>(
    attach: &impl Fn(&[ProbeAt]) -> Result<L, BpfError>,
    probes: &[ProbeAt],
    error: BpfError,
    refused: &mut Vec<u64>,
) -> Result<(), BpfError> {
    if !is_about_the_instruction(&error) || refused.len() >= MOST_REFUSED {
        return Err(error);
    }
    if let [probe] = probes {
        refused.push(probe.cookie);
        return Ok(());
    }
    let (first, second) = probes.split_at(probes.len() / 2);
    for half in [first, second] {
        if let Err(error) = attach(half) {
            find(attach, half, error, refused)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io;

    fn probes(n: u64) -> Vec<ProbeAt> {
        (0..n).map(|i| ProbeAt { offset: i * 16, cookie: i }).collect()
    }

    fn refusal() -> BpfError {
        BpfError::BadInstruction { path: "/bin/x".into(), what: "probe".into() }
    }

    fn kernel(bad: &[u64], probes: &[ProbeAt]) -> Result<usize, BpfError> {
        if probes.iter().any(|p| bad.contains(&p.cookie)) {
            Err(refusal())
        } else {
            Ok(probes.len())
        }
    }

    #[test]
    fn the_refused_ones_are_left_out_and_all_others_are_in_one_link() {
        for bad in [&[][..], &[0], &[999], &[3, 4, 500, 501, 998]] {
            let calls = Cell::new(0);
            let attach = |probes: &[ProbeAt]| {
                calls.set(calls.get() + 1);
                kernel(bad, probes)
            };
            let linked = link_with(attach, Path::new("/bin/x"), &probes(1000)).unwrap();
            assert_eq!(linked.refused, bad);
            assert_eq!(linked.link, Some(1000 - bad.len()));
            assert!(calls.get() <= 2 + 20 * bad.len(), "{} attempts for {bad:?}", calls.get());
        }
    }

    #[test]
    fn nothing_is_left_when_all_are_refused() {
        let all = [0, 1, 2];
        let linked = link_with(|p| kernel(&all, p), Path::new("/bin/x"), &probes(3)).unwrap();
        assert!(linked.link.is_none());
        assert_eq!(linked.refused, all);
    }

    #[test]
    fn a_file_full_of_refusals_is_given_up() {
        let refuse = |_: &[ProbeAt]| Err::<(), _>(refusal());
        let error = link_with(refuse, Path::new("/bin/x"), &probes(1000)).unwrap_err();
        assert!(matches!(error, UprobeError::ManyRefused { refused: 256, .. }), "{error}");
    }

    #[test]
    fn another_error_ends_the_search() {
        let calls = Cell::new(0);
        let attach = |_: &[ProbeAt]| {
            calls.set(calls.get() + 1);
            let source = io::Error::from_raw_os_error(libc::ENOMEM);
            Err::<(), _>(BpfError::System { what: "probe".into(), source })
        };
        let error = link_with(attach, Path::new("/bin/x"), &probes(1000)).unwrap_err();
        assert!(matches!(error, UprobeError::Bpf { .. }), "{error}");
        assert_eq!(calls.get(), 1);
    }
}
