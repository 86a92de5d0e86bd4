//! The permitted width of a boundary, by name: what the other side *may* call, found out from the
//! running machine and not from what a deployment was meant to be.
//!
//! - [`kvm`]: what the host's kernel handles of a guest: exit reasons, registers, hypercalls.
//! - [`monitor`]: what QEMU emulates for this guest: ports, device memory, queues.
//! - [`gvisor`]: system calls that the sentry implements.
//!
//! System calls behind a seccomp filter are `altaz-target`'s, which reads and evaluates the filter.
//! What cannot be found out stays undetermined; nothing here guesses or counts it as zero.

pub mod gvisor;
pub mod kvm;
pub mod monitor;

use altaz_profile::model::{Boundary, BoundaryEntry, Layer, PermittedEntry};
use serde::{Deserialize, Serialize};

/// What may cross one boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permitted {
    /// Name of the boundary.
    pub boundary: String,
    /// Calling side.
    pub from: Layer,
    /// Called side.
    pub to: Layer,
    /// The entry points by name.
    pub entries: Vec<PermittedEntry>,
    /// Where this is from, in words; becomes the boundary's `guard`.
    pub how: String,
    /// What this run called, where the same source says it (queues that were used).
    pub exercised: Option<Vec<BoundaryEntry>>,
}

impl Permitted {
    /// Entry points that do not depend on arguments.
    pub fn new(
        boundary: &str,
        (from, to): (Layer, Layer),
        names: impl IntoIterator<Item = String>,
        how: impl Into<String>,
    ) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let entry = |name| PermittedEntry { name, conditional: false };
        Self {
            boundary: boundary.into(),
            from,
            to,
            entries: names.into_iter().map(entry).collect(),
            how: how.into(),
            exercised: None,
        }
    }

    /// Writes the width into the deployment's boundary, or adds the boundary where the deployment has
    /// both sides and did not know of it.
    pub fn fill(&self, boundaries: &mut Vec<Boundary>) {
        let at = |b: &Boundary| b.name == self.boundary && b.from == self.from && b.to == self.to;
        let i = boundaries.iter().position(at).unwrap_or_else(|| {
            boundaries.push(Boundary::new(self.boundary.as_str(), self.from, self.to, None));
            boundaries.len() - 1
        });
        let Some(b) = boundaries.get_mut(i) else { return };
        b.permitted = Some(self.entries.len() as u32);
        b.permitted_entries = self.entries.clone();
        b.guard = Some(match b.guard.take() {
            Some(guard) if guard != self.how => format!("{guard}; {}", self.how),
            _ => self.how.clone(),
        });
        if let Some(entries) = &self.exercised {
            b.exercised = Some(entries.len() as u32);
            b.entries = entries.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_goes_to_its_own_boundary_and_a_missing_one_is_added() {
        let exits = (Layer::GuestKernel, Layer::HostKernel);
        let p =
            Permitted::new("vm-exit", exits, ["hlt".to_owned(), "cpuid".into()], "the kernel's");
        let mut all = vec![
            Boundary::new("vm-exit", Layer::GuestKernel, Layer::Vmm, None),
            Boundary::new("vm-exit", exits.0, exits.1, None),
        ];
        p.fill(&mut all);
        assert_eq!((all[0].permitted, all[1].permitted), (None, Some(2)));
        assert_eq!(all[1].guard.as_deref(), Some("the kernel's"));
        assert_eq!(all[1].exercised, None, "not counted is not zero");
        Permitted { boundary: "msr".into(), ..p }.fill(&mut all);
        assert_eq!((all.len(), all[2].name.as_str()), (3, "msr"));
    }
}
