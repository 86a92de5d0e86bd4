//! What a vulnerability of the kernel is in one kernel layer.
//!
//! In this order: the version (fixed, older than the defect), the code's presence (another
//! architecture, not built, its module not installed or not loaded), then what was traversed, then
//! guards. A later answer is only asked for when the earlier ones leave it open.

use std::collections::BTreeSet;

use altaz_profile::inventory::{KernelInventory, KernelModule};
use altaz_profile::results::triage::{Justification, Level, State};
use altaz_profile::vulnerability::Affected;
use altaz_profile::{Boundary, Layer};

use super::code::{KernelCode, base, describe, directory};
use super::guards::guard;

/// Traversed functions that a finding lists.
const LISTED: usize = 8;

/// What the kernel's records say of the vulnerable code, all feeds together.
pub struct Target<'a> {
    /// Source files that are compiled (`.c`, `.S`).
    pub files: Vec<&'a str>,
    /// Functions that the fix changes.
    pub functions: BTreeSet<&'a str>,
    /// The only ways in, where a feed lists them.
    pub entries: Vec<&'a str>,
}

impl<'a> Target<'a> {
    /// Puts the feeds' words together.
    pub fn of(affected: &[&'a Affected]) -> Self {
        let mut files: Vec<&str> = affected
            .iter()
            .flat_map(|a| &a.files)
            .map(String::as_str)
            .filter(|f| f.ends_with(".c") || f.ends_with(".S") || f.ends_with(".rs"))
            .collect();
        files.sort_unstable();
        files.dedup();
        Self {
            files,
            functions: affected.iter().flat_map(|a| &a.functions).map(String::as_str).collect(),
            entries: affected.iter().flat_map(|a| &a.entries).map(String::as_str).collect(),
        }
    }
}

/// A kernel as recorded.
pub struct Kernel<'a> {
    /// Which layer's.
    pub layer: Layer,
    /// Architecture, as `uname -m` says it.
    pub arch: &'a str,
    /// What it was built from.
    pub inventory: Option<&'a KernelInventory>,
    /// What was traversed of it.
    pub code: Option<&'a KernelCode<'a>>,
    /// Boundaries of the deployment.
    pub boundaries: &'a [Boundary],
}

/// What a vulnerability is here, short of its version.
pub struct Answer {
    /// The state.
    pub state: State,
    /// What it rests on.
    pub level: Level,
    /// In a sentence.
    pub why: String,
    /// What was traversed.
    pub traversed: Vec<String>,
    /// Proof that it is not affected.
    pub proof: Option<Justification>,
}

impl Answer {
    /// An answer without traversed code or proof.
    pub fn new(state: State, level: Level, why: impl Into<String>) -> Self {
        Self { state, level, why: why.into(), traversed: vec![], proof: None }
    }

    fn proven(mut self, proof: Justification) -> Self {
        self.proof = Some(proof);
        self
    }
}

impl Kernel<'_> {
    /// The answer.
    pub fn answer(&self, target: &Target<'_>) -> Answer {
        let quoted = |f: &[&str]| f.join(", ");
        if let Some(arch) = self.other_architecture(&target.files) {
            let why =
                format!("all of its code is for {arch}, and this kernel is for {}", self.arch);
            return Answer::new(State::NotPresent, Level::Inventory, why)
                .proven(Justification::CodeNotPresent);
        }
        if let Some(answer) = self.traversed_functions(target) {
            return answer;
        }
        if let Some(answer) = self.not_built(target).or_else(|| self.module(target)) {
            return answer;
        }
        if target.functions.is_empty() {
            let hit: Vec<(&str, usize)> = target
                .files
                .iter()
                .map(|f| (*f, self.code.map_or(0, |c| c.in_file(f))))
                .filter(|(_, n)| *n > 0)
                .collect();
            if !hit.is_empty() {
                let files: Vec<String> =
                    hit.iter().map(|(f, n)| format!("{n} functions of {f}")).collect();
                let why = format!(
                    "file-level evidence: this load traversed {}; which of the file's functions are \
                     vulnerable is not known",
                    files.join(", ")
                );
                let mut answer = Answer::new(State::Traversed, Level::File, why);
                answer.traversed = files;
                return answer;
            }
        }
        if let Some(g) =
            guard(self.boundaries, self.layer, &target.files, &target.functions, &target.entries)
        {
            let proof = if g.proven {
                "these are all its entries"
            } else {
                "that these are all its entries is not proven"
            };
            let answer =
                Answer::new(State::Guarded, Level::Inventory, format!("{}; {proof}", g.what));
            return if g.proven {
                answer.proven(Justification::CannotBeControlled)
            } else {
                answer
            };
        }
        if target.files.is_empty() && target.functions.is_empty() {
            let why = "the feeds name neither a compiled file nor a function of it";
            return Answer::new(State::Unmapped, Level::Version, why);
        }
        if !target.functions.is_empty() {
            return self.not_traversed(target);
        }
        let maybe: Vec<&str> = target
            .files
            .iter()
            .copied()
            .filter(|f| self.code.is_some_and(|c| c.may_be_in(f)))
            .collect();
        if maybe.is_empty() {
            let why = format!("nothing of {} was traversed", quoted(&target.files));
            return Answer::new(State::NotTraversed, Level::File, why);
        }
        let why = format!(
            "the functions of its fix are not known, and functions were traversed whose source file \
             is only known to be near {}",
            quoted(&maybe)
        );
        Answer::new(State::Unmapped, Level::File, why)
    }

    fn other_architecture(&self, files: &[&str]) -> Option<String> {
        let own = match self.arch {
            "x86_64" | "i686" | "i386" => "x86",
            "aarch64" => "arm64",
            "ppc64le" | "ppc64" => "powerpc",
            "s390x" => "s390",
            "riscv64" => "riscv",
            "mips" | "mips64" => "mips",
            "loongarch64" => "loongarch",
            _ => return None,
        };
        let mut arch = None;
        for file in files {
            let (of, _) = file.strip_prefix("arch/")?.split_once('/')?;
            if of == own {
                return None;
            }
            arch = Some(of.to_owned());
        }
        arch
    }

    fn traversed_functions(&self, target: &Target<'_>) -> Option<Answer> {
        let code = self.code?;
        let mut units = Vec::new();
        let mut names = BTreeSet::new();
        for function in &target.functions {
            let rows = code.function(function, &target.files);
            if let Some(first) = rows.first() {
                units.push(describe(first));
                names.insert(*function);
            }
        }
        if units.is_empty() {
            return None;
        }
        let why = format!(
            "this load traversed {} of the {} functions that the fix changes",
            names.len(),
            target.functions.len()
        );
        let mut answer = Answer::new(State::Traversed, Level::Function, why);
        units.truncate(LISTED);
        answer.traversed = units;
        Some(answer)
    }

    /// That nothing of it was built: no object in its directories, and none of its functions anywhere.
    fn not_built(&self, target: &Target<'_>) -> Option<Answer> {
        let inventory = self.inventory.filter(|i| i.lists_all_functions)?;
        if target.functions.is_empty() || target.files.is_empty() {
            return None;
        }
        let near = |file: &&str| {
            let own = directory(file);
            inventory.modules.iter().any(|m| m.directory == own)
                || inventory.builtin.iter().any(|b| directory(b) == own)
                || self.code.is_some_and(|c| c.in_file(file) > 0 || c.in_directory_of(file))
        };
        let known = |function: &&str| {
            has(&inventory.functions, function)
                || inventory.modules.iter().any(|m| has(&m.functions, function))
        };
        if target.files.iter().any(near) || target.functions.iter().any(known) {
            return None;
        }
        let mut directories: Vec<&str> = target.files.iter().map(|f| directory(f)).collect();
        directories.dedup();
        let why = format!(
            "not compiled: the kernel and its {} modules have no object from {} and none of the \
             functions that the fix changes",
            inventory.modules.len(),
            directories.join(", ")
        );
        let answer = Answer::new(State::NotPresent, Level::Inventory, why);
        Some(answer.proven(Justification::CodeNotPresent))
    }

    /// That all of its code is in modules that were not loaded.
    fn module(&self, target: &Target<'_>) -> Option<Answer> {
        let inventory = self.inventory?;
        let mut holders: Vec<&KernelModule> = Vec::new();
        if target.functions.is_empty() {
            for file in &target.files {
                holders.extend(holders_of_file(inventory, file)?);
            }
        } else {
            let of = |m: &&KernelModule| {
                let near = target.files.is_empty()
                    || target.files.iter().any(|f| directory(f).starts_with(&m.directory));
                near && target.functions.iter().any(|f| has(&m.functions, f))
            };
            holders.extend(inventory.modules.iter().filter(of));
            let built_in = target.functions.iter().any(|f| has(&inventory.functions, f));
            // A name that is also in the kernel proper is only the module's when its directory holds
            // nothing that is built in.
            let mixed =
                |m: &&KernelModule| inventory.builtin.iter().any(|b| directory(b) == m.directory);
            if built_in && holders.iter().any(mixed) {
                return None;
            }
            // Functions that were inlined, or a list without functions: by the file.
            if holders.is_empty() && !built_in {
                for file in &target.files {
                    holders.extend(holders_of_file(inventory, file)?);
                }
            }
        }
        let loaded = |m: &&KernelModule| {
            m.loaded != Some(false) || self.code.is_some_and(|c| c.saw_module(&m.name))
        };
        if holders.is_empty() || holders.iter().any(loaded) {
            return None;
        }
        let mut names: Vec<String> = holders.iter().map(|m| format!("[{}]", m.name)).collect();
        names.sort_unstable();
        names.dedup();
        let why = format!(
            "its code is in {}, installed and not loaded when the recording ended; it may be loaded \
             on demand",
            names.join(", ")
        );
        Some(Answer::new(State::NotLoaded, Level::Inventory, why))
    }

    fn not_traversed(&self, target: &Target<'_>) -> Answer {
        let names: Vec<&str> = target.functions.iter().copied().take(LISTED).collect();
        let inventory = self.inventory.filter(|i| i.lists_all_functions);
        let as_symbol = |f: &&&str| {
            inventory.is_none_or(|i| {
                has(&i.functions, f) || i.modules.iter().any(|m| has(&m.functions, f))
            })
        };
        let symbols = target.functions.iter().filter(as_symbol).count();
        if symbols == 0 {
            let hit = target.files.iter().any(|f| self.code.is_some_and(|c| c.in_file(f) > 0));
            let (state, more) = if hit {
                (State::Traversed, "functions of their file were traversed (file-level evidence)")
            } else {
                (State::Unmapped, "whether it was traversed cannot be seen")
            };
            let why = format!(
                "the compiler left none of {} as a function of its own; {more}",
                names.join(", ")
            );
            return Answer::new(state, Level::File, why);
        }
        let inlined = target.functions.len() - symbols;
        let more = if inlined > 0 {
            format!("; {inlined} more are no functions of their own in this build")
        } else {
            String::new()
        };
        let why = format!("none of {} was traversed{more}", names.join(", "));
        Answer::new(State::NotTraversed, Level::Function, why)
    }
}

/// Modules that a source file can belong to; `None` when it may as well be built in, or when nothing
/// says.
fn holders_of_file<'a>(
    inventory: &'a KernelInventory,
    file: &str,
) -> Option<Vec<&'a KernelModule>> {
    let own = directory(file);
    if inventory.builtin.iter().any(|b| directory(b) == own) {
        return None;
    }
    let stem = file.rsplit('/').next().unwrap_or(file).split('.').next().unwrap_or_default();
    let stem = stem.replace('-', "_");
    let all: Vec<&KernelModule> = inventory.modules.iter().filter(|m| m.directory == own).collect();
    let named = |name: &str| -> Vec<&KernelModule> {
        all.iter().copied().filter(|m| m.name == name).collect()
    };
    let exact = named(&stem);
    if !exact.is_empty() {
        return Some(exact);
    }
    // A module of several objects has the name of its directory (`fs/netfs`). Where none has, the
    // directory also holds code that can only be built in (`net/xfrm/xfrm_device.c`).
    let whole = named(&own.rsplit('/').next().unwrap_or(own).replace('-', "_"));
    (!whole.is_empty()).then_some(whole)
}

/// Whether an ascending list of names has this one, clones and parts of it included.
fn has(names: &[String], function: &str) -> bool {
    let function = base(function);
    let at = names.partition_point(|n| n.as_str() < function);
    names.get(at).is_some_and(|n| base(n) == function)
}
