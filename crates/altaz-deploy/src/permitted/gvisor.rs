//! System calls that gVisor's sentry implements, as the sentry itself lists them (`runsc help syscalls`).

use std::time::Duration;

use altaz_profile::model::{Layer, PermittedEntry};

use super::Permitted;
use crate::DeployError;
use crate::exec::Tool;

/// Asks this program for the calls that its sentry implements.
///
/// # Errors
/// When it cannot be run or prints something else.
pub fn permitted(runsc: &str) -> Result<Permitted, DeployError> {
    let arguments = [runsc, "help", "syscalls"];
    let printed = Tool::new(arguments).timeout(Duration::from_secs(60)).run()?;
    listed(&String::from_utf8_lossy(&printed)).ok_or_else(|| {
        DeployError::Service(format!("`{}` did not list system calls", arguments.join(" ")))
    })
}

/// Reads the table: number, name, support in words, note; further lines of a note have no number.
fn listed(text: &str) -> Option<Permitted> {
    let lines = text.lines().skip_while(|l| l.trim() != "linux/amd64:").skip(1);
    let mut entries: Vec<PermittedEntry> = lines
        .take_while(|l| !l.starts_with("linux/"))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            if !line.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            words.next()?.parse::<u32>().ok()?;
            let (name, support) = (words.next()?, words.next()?);
            let conditional = support == "Partial";
            // What is not implemented is answered with an error whatever its arguments.
            (support == "Full" || conditional || support == "Undocumented")
                .then(|| PermittedEntry { name: name.to_owned(), conditional })
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.dedup_by(|a, b| a.name == b.name);
    let how = "system calls that this gVisor says it implements (`runsc help syscalls`), some of them \
               partly";
    let of = (Layer::App, Layer::SandboxKernel);
    (!entries.is_empty()).then(|| Permitted { entries, ..Permitted::new("syscall", of, [], how) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_implemented_is_not_permitted_and_partial_support_depends_on_arguments() {
        let text = "linux/amd64:

NUM  NAME                    SUPPORT          NOTE
0    read                    Full Support     Fully Supported.
26   msync                   Partial Support  Full data flush is not guaranteed at this time.
122  setfsuid                Unimplemented    Returns \"invalid system call number\".
                                              See: gvisor.dev/issue/260

linux/arm64:

0    io_setup                Full Support     Fully Supported.
";
        let p = listed(text).unwrap();
        let got: Vec<_> = p.entries.iter().map(|e| (e.name.as_str(), e.conditional)).collect();
        assert_eq!(got, [("msync", true), ("read", false)]);
        assert_eq!(listed("Usage: runsc"), None);
        assert_eq!(listed("linux/arm64:\n0 io_setup Full Support"), None);
    }
}
