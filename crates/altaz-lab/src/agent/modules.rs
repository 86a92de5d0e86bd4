//! Loads kernel modules from the initrd in the order the image builder wrote down.
//!
//! They are modules of one kernel. Another one (a user-mode Linux, a kernel that came with a monitor)
//! has the drivers of its own machine built in, and no use for them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses the module itself.
const COMPRESSED: libc::c_int = 4;

/// Loads every module listed in `directory/order`, one file name a line.
pub(super) fn load_all(directory: &Path) -> io::Result<()> {
    let order = match fs::read_to_string(directory.join("order")) {
        Ok(order) => order,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let release = nix::sys::utsname::uname()?.release().as_encoded_bytes().to_owned();
    if fs::read(directory.join("release"))? != release {
        return Ok(());
    }
    for name in order.lines().filter(|line| !line.is_empty()) {
        load(&directory.join(name))
            .map_err(|e| io::Error::new(e.kind(), format!("loading module {name}: {e}")))?;
    }
    Ok(())
}

fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let compressed = path.extension().is_some_and(|e| e != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: the parameter string is NUL-terminated and static; the descriptor is open.
    let rc =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) };
    let error = io::Error::last_os_error();
    if rc == 0 || error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) }
}
