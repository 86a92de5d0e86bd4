//! Known vulnerabilities against a recorded deployment: for each one of an installed component, one
//! state with its evidence.
//!
//! Pure: vulnerabilities and inventories are values that somebody else read. Two rules are never
//! bent. Nothing is *not affected* without a proof (its code is not there, its version has the fix,
//! a guard blocks every entry). And *not traversed under this load* is no proof: it stays under
//! investigation and carries how complete the recording was.

mod code;
mod guards;
mod kernel;
mod products;
mod userland;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use altaz_profile::inventory::{Package, Place};
use altaz_profile::results::triage::{
    Finding, Justification, Level, Product, ProfileTriage, State, StateCount, VexStatus,
};
use altaz_profile::vulnerability::{Affected, Ecosystem, Exploitations, Vulnerability};
use altaz_profile::{Layer, Profile, Unit};

use self::code::Code;
use self::kernel::{Answer, Kernel, Target};
use self::verdict::{Installed, Verdict, verdict};

/// What feeds know.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Vulnerabilities by name.
    pub vulnerabilities: &'a BTreeMap<String, Vulnerability>,
    /// Exploitation by CVE.
    pub exploitation: &'a Exploitations,
}

/// Judges every vulnerability of a component that is installed where `profile` was recorded.
/// `places` are what was installed: the profile's own, or those of an inventory of its own.
pub fn triage(file: &str, profile: &Profile, places: &[Place], known: Known<'_>) -> ProfileTriage {
    let mut run = Run::new(profile, places, known);
    let mut not_installed = 0;
    for v in known.vulnerabilities.values().filter(|v| !v.withdrawn) {
        let before = run.findings.len();
        run.kernels(v);
        run.packages(v);
        not_installed += u64::from(run.findings.len() == before);
    }
    run.finish(file, not_installed)
}

/// A kernel layer's product and what its version is.
struct KernelProduct<'a> {
    index: usize,
    layer: Layer,
    place: Option<&'a Place>,
    package: Option<&'a Package>,
    upstream: Option<String>,
    releases: Vec<&'a str>,
}

struct Run<'a> {
    profile: &'a Profile,
    known: Known<'a>,
    code: Code<'a>,
    coverage: HashMap<Layer, Option<f64>>,
    kernels: Vec<KernelProduct<'a>>,
    /// Installed packages by source.
    by_source: HashMap<&'a str, Vec<(&'a Place, &'a Package)>>,
    /// Traversed rows by place and package.
    units: HashMap<(&'a str, &'a str), Vec<&'a Unit>>,
    products: Vec<Product>,
    by_purl: HashMap<(String, String), usize>,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(profile: &'a Profile, places: &'a [Place], known: Known<'a>) -> Self {
        let code = Code::of(profile);
        let mut notes = Vec::new();
        let coverage = match crate::assess(profile, &crate::Options { components: 0 }) {
            Ok(result) => result.layers.iter().map(|l| (l.name, l.coverage)).collect(),
            Err(e) => {
                notes.push(format!("no coverage is known: {e}"));
                HashMap::new()
            }
        };
        let mut by_source: HashMap<&str, Vec<(&Place, &Package)>> = HashMap::new();
        for place in places {
            for package in &place.packages {
                by_source.entry(products::source(package)).or_default().push((place, package));
            }
        }
        let mut units: HashMap<(&str, &str), Vec<&Unit>> = HashMap::new();
        let mut unpackaged = 0_u64;
        for ((layer, binary), rows) in code.binaries() {
            let place = places.iter().find(|p| p.layers.contains(layer));
            match place.and_then(|place| Some((place, place.package_of(binary)?))) {
                Some((place, package)) => {
                    units.entry((&place.name, &package.name)).or_default().extend(rows);
                }
                None => unpackaged += 1,
            }
        }
        if places.is_empty() {
            notes.push(
                "the profile has no list of installed packages: only the host's kernel was looked at; \
                 give one with --inventory (altaz inventory makes it)"
                    .into(),
            );
        } else if unpackaged > 0 {
            notes.push(format!(
                "{unpackaged} traversed binaries belong to no installed package; nothing is known of \
                 their vulnerabilities"
            ));
        }
        let mut run = Self {
            profile,
            known,
            code,
            coverage,
            kernels: Vec::new(),
            by_source,
            units,
            products: Vec::new(),
            by_purl: HashMap::new(),
            findings: Vec::new(),
            notes,
        };
        run.find_kernels(places);
        run
    }

    fn find_kernels(&mut self, places: &'a [Place]) {
        let manifest = &self.profile.manifest;
        for layer in [Layer::GuestKernel, Layer::HostKernel] {
            if !manifest.layers.iter().any(|l| l.name == layer) {
                continue;
            }
            let place = places.iter().find(|p| p.kernel.is_some() && p.layers.contains(&layer));
            let inventory = place.and_then(|p| p.kernel.as_ref());
            if inventory.is_none() && layer == Layer::GuestKernel {
                self.notes.push("which kernel the guest runs is not known".into());
                continue;
            }
            let package = inventory
                .and_then(|k| k.package.as_deref())
                .zip(place)
                .and_then(|(name, place)| place.package(name));
            let release = inventory.map_or(manifest.host.kernel.as_str(), |k| k.release.as_str());
            let version = package.map(|p| p.version.as_str());
            let upstream = verdict::kernel_upstream(version, release);
            if upstream.is_none() {
                self.notes.push(format!(
                    "`{release}` names the kernel's ABI and not its version; an inventory tells it"
                ));
            }
            let product =
                products::kernel(manifest, place, package, upstream.as_deref(), release, layer);
            self.products.push(product);
            let releases = place.into_iter().flat_map(releases).collect();
            let index = self.products.len() - 1;
            self.kernels.push(KernelProduct { index, layer, place, package, upstream, releases });
        }
    }

    /// A vulnerability of the kernel, in each kernel layer.
    fn kernels(&mut self, v: &Vulnerability) {
        let affected: Vec<&Affected> = v
            .affected
            .iter()
            .filter(|a| match a.ecosystem {
                Ecosystem::Linux => true,
                Ecosystem::Debian => a.package == "linux",
                _ => false,
            })
            .collect();
        if affected.is_empty() {
            return;
        }
        let target = Target::of(&affected);
        let mut found = Vec::new();
        for k in &self.kernels {
            let installed = Installed {
                package: k.package.map(|p| (products::source_version(p), &k.releases[..])),
                source: "linux",
                upstream: k.upstream.as_deref(),
            };
            let (verdict, note) = verdict(&installed, Ecosystem::Linux, &affected);
            let kernel = Kernel {
                layer: k.layer,
                arch: &self.profile.manifest.host.arch,
                inventory: k.place.and_then(|p| p.kernel.as_ref()),
                code: self.code.kernel(k.layer),
                boundaries: &self.profile.manifest.boundaries,
            };
            let answer = by_version(&verdict).unwrap_or_else(|| kernel.answer(&target));
            found.push((k.index, vec![k.layer], verdict, note, answer));
        }
        for (product, layers, verdict, note, answer) in found {
            self.push(v, &affected, product, &layers, verdict, note, answer);
        }
    }

    /// A vulnerability of packages.
    fn packages(&mut self, v: &Vulnerability) {
        // The distribution's packages, and those that an advisory of a language means.
        let mut sources: BTreeSet<&str> = BTreeSet::new();
        for a in &v.affected {
            match a.ecosystem {
                Ecosystem::Debian if a.package != "linux" => {
                    sources
                        .extend(self.by_source.get_key_value(a.package.as_str()).map(|(s, _)| *s));
                }
                Ecosystem::Go | Ecosystem::Crates => {
                    let of = |s: &&&'a str| products::is_module_of(s, &a.package);
                    sources.extend(self.by_source.keys().filter(of).copied());
                }
                _ => {}
            }
        }
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let sources: Vec<String> = sources.into_iter().map(str::to_owned).collect();
        for source in &sources {
            let installed = self.by_source.get(source.as_str()).cloned().unwrap_or_default();
            for (place, package) in installed {
                self.package(v, source, place, package);
                seen.insert(package.name.clone());
            }
        }
        if sources.is_empty() {
            self.embedded(v);
        }
    }

    fn package(&mut self, v: &Vulnerability, source: &str, place: &'a Place, package: &'a Package) {
        let upstream = products::upstream(package);
        let affected: Vec<&Affected> = v
            .affected
            .iter()
            .filter(|a| match a.ecosystem {
                Ecosystem::Debian => a.package == source,
                Ecosystem::Go => {
                    products::is_module_of(source, &a.package)
                        && products::is_major_of(a, &upstream)
                }
                Ecosystem::Crates => products::is_module_of(source, &a.package),
                _ => false,
            })
            .collect();
        let language = affected.iter().find(|a| a.ecosystem != Ecosystem::Debian);
        let ecosystem = language.map_or(Ecosystem::Debian, |a| a.ecosystem);
        let releases: Vec<&str> = releases(place).collect();
        // Another release's word says nothing about this one.
        let ours = |a: &&&Affected| {
            a.ecosystem != Ecosystem::Debian
                || a.release.as_deref().is_none_or(|r| releases.contains(&r))
        };
        if !affected.iter().any(|a| ours(&a)) {
            return;
        }
        let installed = Installed {
            package: Some((products::source_version(package), &releases)),
            source,
            upstream: Some(&upstream),
        };
        let (verdict, note) = verdict(&installed, ecosystem, &affected);
        let units = self.units.get(&(place.name.as_str(), package.name.as_str()));
        let units = units.map(Vec::as_slice).unwrap_or_default();
        let mut layers: Vec<Layer> = units.iter().map(|u| u.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let answer = by_version(&verdict)
            .unwrap_or_else(|| userland::answer(&package.name, units, &affected));
        let product = products::package(&self.profile.manifest, place, package, layers.clone());
        let key = (product.place.clone(), product.purl.clone());
        let index = match self.by_purl.get(&key) {
            Some(index) => *index,
            None => {
                self.products.push(product);
                self.by_purl.insert(key, self.products.len() - 1);
                self.products.len() - 1
            }
        };
        self.push(v, &affected, index, &layers, verdict, note, answer);
    }

    /// A Go module inside a traversed binary, as its symbols show. Its version is not recorded.
    fn embedded(&mut self, v: &Vulnerability) {
        let go: Vec<&Affected> =
            v.affected.iter().filter(|a| a.ecosystem == Ecosystem::Go).collect();
        let Some(first) = go.first() else { return };
        let units: Vec<&Unit> = go.iter().flat_map(|a| self.code.go_below(&a.package)).collect();
        let Some(unit) = units.first() else { return };
        let layers: Vec<Layer> =
            units.iter().map(|u| u.layer).collect::<BTreeSet<_>>().into_iter().collect();
        let mut answer = userland::answer(&first.package, &units, &go);
        answer.why = format!("{}; the module is part of {}", answer.why, unit.binary);
        let purl = format!("pkg:golang/{}", first.package);
        let key = (unit.binary.to_string(), purl.clone());
        let index = *self.by_purl.entry(key).or_insert_with(|| {
            self.products.push(Product {
                purl,
                cpe: None,
                name: first.package.clone(),
                version: String::new(),
                place: unit.binary.to_string(),
                owner: products::owner(&self.profile.manifest, &layers),
                layers: layers.clone(),
            });
            self.products.len() - 1
        });
        let verdict =
            Verdict::Unknown("the version of a module inside a binary is not recorded".into());
        self.push(v, &go, index, &layers, verdict, None, answer);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one finding")]
    fn push(
        &mut self,
        v: &Vulnerability,
        affected: &[&Affected],
        product: usize,
        layers: &[Layer],
        verdict: Verdict,
        note: Option<String>,
        answer: Answer,
    ) {
        let coverage = layers
            .iter()
            .map(|l| self.coverage.get(l).copied().flatten())
            .reduce(|a, b| Some(a?.min(b?)))
            .flatten();
        let mut feeds: Vec<String> = affected.iter().map(|a| a.feed.clone()).collect();
        feeds.sort_unstable();
        feeds.dedup();
        let mut why = answer.why;
        match &verdict {
            Verdict::Affected { by, .. } => why = format!("{why}; version: affected ({by})"),
            Verdict::Unknown(reason) => why = format!("{why}; version: {reason}"),
            Verdict::Fixed(_) | Verdict::Never(_) => {}
        }
        if let Some(note) = note {
            why = format!("{why}; {note}");
        }
        let status = status(&answer.state, answer.proof, &verdict);
        if status == VexStatus::UnderInvestigation {
            why = format!("{why}; {}", coverage_words(coverage, layers));
        }
        let action = (status == VexStatus::Affected)
            .then(|| self.products.get(product).map(|p| action(p, &verdict)))
            .flatten();
        let exploitation = std::iter::once(&v.id)
            .chain(&v.aliases)
            .find_map(|name| self.known.exploitation.get(name))
            .cloned()
            .unwrap_or_default();
        self.findings.push(Finding {
            id: v.id.clone(),
            aliases: v.aliases.clone(),
            title: v.title.clone(),
            product,
            state: answer.state,
            level: answer.level,
            why,
            traversed: answer.traversed,
            coverage,
            status,
            justification: answer.proof.filter(|_| status == VexStatus::NotAffected),
            action,
            cvss: v.cvss.clone(),
            exploitation,
            feeds,
        });
    }

    fn finish(mut self, file: &str, not_installed: u64) -> ProfileTriage {
        self.findings.sort_by(|a, b| {
            let epss = |f: &Finding| f.exploitation.epss.unwrap_or(-1.0);
            a.state
                .cmp(&b.state)
                .then_with(|| b.exploitation.kev.is_some().cmp(&a.exploitation.kev.is_some()))
                .then_with(|| epss(b).total_cmp(&epss(a)))
                .then_with(|| a.id.cmp(&b.id))
                .then_with(|| a.product.cmp(&b.product))
        });
        let counts = State::ALL
            .iter()
            .map(|&state| {
                let findings = self.findings.iter().filter(|f| f.state == state).count() as u64;
                StateCount { state, findings }
            })
            .collect();
        let manifest = &self.profile.manifest;
        ProfileTriage {
            file: file.into(),
            service: manifest.service.clone(),
            deployment: manifest.deployment.clone(),
            recorded_at: manifest.recorded_at.clone(),
            products: self.products,
            counts,
            findings: self.findings,
            not_installed,
            notes: self.notes,
        }
    }
}

fn releases(place: &Place) -> impl Iterator<Item = &str> {
    place.codename.as_deref().into_iter().chain(place.version.as_deref())
}

/// The answer where the version alone gives it.
fn by_version(verdict: &Verdict) -> Option<Answer> {
    match verdict {
        Verdict::Fixed(why) => Some(Answer::new(State::Fixed, Level::Version, why.clone())),
        Verdict::Never(why) => {
            let mut answer = Answer::new(State::NotPresent, Level::Version, why.clone());
            answer.proof = Some(Justification::CodeNotPresent);
            Some(answer)
        }
        Verdict::Affected { .. } | Verdict::Unknown(_) => None,
    }
}

fn status(state: &State, proof: Option<Justification>, verdict: &Verdict) -> VexStatus {
    match state {
        State::Fixed => VexStatus::Fixed,
        _ if proof.is_some() => VexStatus::NotAffected,
        // That code was traversed is one half; that this version of it has the defect the other.
        State::Traversed if matches!(verdict, Verdict::Affected { .. }) => VexStatus::Affected,
        _ => VexStatus::UnderInvestigation,
    }
}

fn coverage_words(coverage: Option<f64>, layers: &[Layer]) -> String {
    let names: Vec<&str> = layers.iter().map(|l| l.as_str()).collect();
    match coverage {
        Some(c) => {
            format!(
                "the recording saw {:.2} % of this load's code in {}",
                c * 100.0,
                names.join(", ")
            )
        }
        None => "how complete the recording is for its code is not known".into(),
    }
}

fn action(product: &Product, verdict: &Verdict) -> String {
    let who = match product.owner {
        Some(owner) => format!("the {owner} must"),
        None => "its owner must".to_owned(),
    };
    match verdict {
        Verdict::Affected { fixed_in: Some(fixed), .. } => format!(
            "{who} upgrade {} {} to a version with the fix ({fixed} or later)",
            product.name, product.version
        ),
        _ => format!(
            "no fixed version of {} {} is known: {who} watch for one, and until then keep untrusted \
             input from the functions named, or disable them",
            product.name, product.version
        ),
    }
}
