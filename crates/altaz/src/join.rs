//! `altaz join`: the recordings of a guest's two sides as one profile.

use std::process::ExitCode;

use altaz_profile::{file, ops};
use anyhow::Context as _;

use crate::cli::{Context, JoinArgs};
use crate::exit::Exit;

pub(crate) fn run(args: &JoinArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let host = file::read(&args.host)?;
    let (host_name, guest_name) = (args.host.display(), args.guest.display());
    let (joined, exit) = match file::read(&args.guest) {
        Ok(guest) => {
            let joined = ops::join(&host, &guest)
                .with_context(|| format!("cannot join {host_name} and {guest_name}"))?;
            (joined, Exit::Fine)
        }
        // A guest that is lost costs its own side, and not the host's.
        Err(lost) => {
            let alone = ops::without_guest(&host, &lost.to_string())
                .with_context(|| format!("cannot join {host_name} and {guest_name}"))?;
            cx.ui.error(&format!("the guest's side is missing: {lost}"));
            (alone, Exit::Incomplete)
        }
    };
    file::write(&joined, &args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    cx.ui.note(&format!("wrote {}", args.output.display()));
    Ok(exit.into())
}
