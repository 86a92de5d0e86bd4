//! The end of a recording: everything is taken down first, then named and put together.

use std::collections::{BTreeSet, HashMap};

use altaz_profile::{BlindSpot, BoundaryEntry, Calibration, Context, Layer, Unit, Window};
use altaz_target::{Role, Target};

use super::error::LiveError;
use super::kernel::KernelNames;
use super::rows::UnitId;
use super::session::{Kernel, Session, context};

/// Nice value of naming: a tenth of what others weigh. At the lowest one a second of it takes minutes on a
/// machine without idle CPUs, and a service manager that waits for the end kills altaz before the
/// profile is written.
const LOW_PRIORITY: i32 = 10;

/// What a recording leaves behind.
#[derive(Debug)]
pub struct Recorded {
    /// `CLOCK_MONOTONIC` at the origin of the windows, ns.
    pub origin_ns: u64,
    /// Windows.
    pub windows: Vec<Window>,
    /// Rows.
    pub units: Vec<Unit>,
    /// The target, with the boundaries as measured.
    pub target: Target,
    /// Known calls against counted ones.
    pub calibration: Option<Calibration>,
    /// What was not seen.
    pub blind_spots: Vec<BlindSpot>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// Events lost in all windows.
    pub lost: u64,
}

impl Session {
    /// Takes the tracing down, then names what it saw.
    fn finish_kernel(&mut self, kernel: Kernel) -> BTreeSet<(UnitId, Context)> {
        let Kernel { recorder, units, waiting, .. } = kernel;
        let mut background = BTreeSet::new();
        match recorder.baseline(self.plan.baseline, &|| false) {
            Ok(baseline) => {
                let found = baseline.background.iter();
                background.extend(
                    found.filter_map(|b| Some((*units.get(&b.function)?, context(b.context)))),
                );
            }
            Err(error) => self.notes.push(format!(
                "whose interrupts the functions in interrupt contexts are was not looked at: {error}"
            )),
        }
        let traceable: Vec<u64> = recorder.functions().iter().map(|(_, f)| f.address).collect();
        if let Err(error) = recorder.finish() {
            self.notes.push(format!("tracing could not be taken down cleanly: {error}"));
        }
        if waiting > 0 {
            self.blind_spots.push(BlindSpot {
                layer: Some(Layer::HostKernel),
                kind: "not-armed".into(),
                what: "the recording ended before these kernel functions were watched at all"
                    .into(),
                bytes: None,
                functions: Some(u64::from(waiting)),
            });
        }
        // Nothing is recorded any more: whatever else runs on this machine goes first.
        let _ = rustix::process::setpriority_process(None, LOW_PRIORITY);
        let names = match KernelNames::read(&self.kernel_roots, &self.plan.release) {
            Ok(names) => names,
            Err(error) => {
                self.notes.push(format!(
                    "kernel functions have the tracer's names, and no sizes: {error}"
                ));
                return background;
            }
        };
        let renamed = self.rows.rename(|target| match target.layer {
            Layer::HostKernel => names.target(target.offset),
            _ => Some(target.clone()),
        });
        let removed = units.values().filter(|unit| !renamed.contains_key(unit)).count();
        if removed > 0 {
            self.notes.push(format!(
                "{removed} traced functions are in no symbol table any more (unloaded modules)"
            ));
        }
        self.blind_spots.push(names.not_traceable(traceable));
        background
            .into_iter()
            .filter_map(|(unit, context)| Some((*renamed.get(&unit)?, context)))
            .collect()
    }

    /// Ends the recording without making a profile of it: removes what was set up in the kernel, and
    /// says how many events were lost.
    ///
    /// # Errors
    /// When the tracing instance cannot be removed.
    pub fn close(mut self) -> Result<u64, LiveError> {
        drop(self.userland.take());
        if let Some(kernel) = self.kernel.take() {
            kernel.recorder.finish()?;
        }
        Ok(self.lost)
    }

    /// Ends the recording, removes what was set up in the kernel, and gives what was seen.
    pub fn finish(mut self) -> Recorded {
        let calibration = self.calibration();
        // First: as long as probes are attached the service pays for them.
        if let Some(userland) = self.userland.take() {
            let (found, spots, notes) = userland.finish();
            self.userland_seen(found);
            self.blind_spots.extend(spots);
            self.notes.extend(notes);
        }
        let background =
            self.kernel.take().map(|kernel| self.finish_kernel(kernel)).unwrap_or_default();
        if let Some(syscalls) = self.syscalls.take() {
            let c = syscalls.calibration();
            if !c.reconciles() {
                self.notes.push(format!(
                    "of {} known system calls {} were counted: the counts of system calls are not \
                     to be trusted",
                    c.made, c.counted
                ));
            }
            let (entries, lost) = syscalls.finish(&mut |tgid| self.process_of(tgid).1);
            if lost > 0 {
                self.notes.push(format!("{lost} system calls found no room in the counter"));
            }
            for boundary in &mut self.target.boundaries {
                if boundary.name == "syscall" && boundary.to == Layer::HostKernel {
                    boundary.entries = of_layer(&entries, boundary.from, &self.tgid_roles);
                    boundary.exercised = Some(boundary.entries.len() as u32);
                }
            }
        }
        if let Some(exits) = self.exits.take() {
            let (counted, lost) = exits.finish();
            if lost > 0 {
                self.notes.push(format!("{lost} VM exits found no room in the counter"));
            }
            for boundary in &mut self.target.boundaries {
                if let Some(entries) = counted.get(&boundary.name) {
                    boundary.exercised = Some(entries.len() as u32);
                    boundary.entries.clone_from(entries);
                }
            }
        }
        let (windows, units) = self.rows.finish(&background);
        let mut blind_spots = std::mem::take(&mut self.target.blind_spots);
        blind_spots.append(&mut self.blind_spots);
        let mut notes = std::mem::take(&mut self.target.notes);
        notes.append(&mut self.notes);
        let mut said = BTreeSet::new();
        notes.retain(|note| said.insert(note.clone()));
        Recorded {
            origin_ns: self.origin_ns,
            windows,
            units,
            target: self.target,
            calibration,
            blind_spots,
            notes,
            lost: self.lost,
        }
    }
}

/// The layer whose code makes the system calls of a role's processes.
fn caller(role: Role) -> Layer {
    match role {
        Role::Sentry => Layer::SandboxKernel,
        Role::Gofer => Layer::SandboxHelper,
        Role::Vmm => Layer::Vmm,
        Role::VmmHelper => Layer::VmmHelper,
        Role::Shim => Layer::HostService,
        Role::App | Role::Stub | Role::KernelWorker => Layer::App,
    }
}

/// The calls that processes of one layer made, most frequent first. A process that nobody saw alive
/// was forked by the service's own.
fn of_layer(
    entries: &[BoundaryEntry],
    from: Layer,
    roles: &HashMap<u32, Role>,
) -> Vec<BoundaryEntry> {
    let is_of = |tgid: u32| roles.get(&tgid).map_or(Layer::App, |r| caller(*r)) == from;
    let mut out: Vec<BoundaryEntry> = entries
        .iter()
        .filter_map(|entry| {
            let by_process: Vec<_> =
                entry.by_process.iter().filter(|p| is_of(p.tgid)).cloned().collect();
            let count = by_process.iter().map(|p| p.count).sum();
            (count > 0).then(|| BoundaryEntry { name: entry.name.clone(), count, by_process })
        })
        .collect();
    BoundaryEntry::sort(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::ProcessCount;

    #[test]
    fn each_layer_has_the_calls_of_its_own_processes() {
        let by = |tgid, count| ProcessCount { tgid, comm: String::new(), count };
        let entry = |name: &str, by_process: Vec<ProcessCount>| BoundaryEntry {
            name: name.into(),
            count: by_process.iter().map(|p| p.count).sum(),
            by_process,
        };
        let all = [entry("read", vec![by(1, 5), by(2, 1)]), entry("futex", vec![by(2, 9)])];
        let roles = HashMap::from([(1, Role::Gofer), (2, Role::Sentry)]);
        let names = |from| -> Vec<_> {
            of_layer(&all, from, &roles).into_iter().map(|e| (e.name, e.count)).collect()
        };
        assert_eq!(names(Layer::SandboxHelper), [("read".to_owned(), 5)]);
        let sentry = [("futex".to_owned(), 9), ("read".to_owned(), 1)];
        assert_eq!(names(Layer::SandboxKernel), sentry);
        assert!(names(Layer::App).is_empty());
    }
}
