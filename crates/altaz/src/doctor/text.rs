//! The doctor's findings for a terminal.

use std::fmt::Write;

use altaz_collect::doctor::{Capability, Check, DoctorReport, InstrumentReport, State};
use altaz_profile::model::InstrumentKind;

pub(super) fn render(report: &DoctorReport, color: bool) -> String {
    let p = Painter { color };
    let mut out = format!("Linux {}, {}, {} CPUs", report.kernel, report.arch, report.cpus);
    if let Some(memory) = report.memory {
        let _ = write!(out, ", {:.1} GiB memory", memory as f64 / f64::from(1 << 30));
    }
    out.push('\n');
    for instrument in &report.instruments {
        p.instrument(&mut out, instrument);
    }
    out.push_str("\nhardware virtualisation (needed by neither)\n");
    p.check(&mut out, &report.kvm);
    out
}

struct Painter {
    color: bool,
}

impl Painter {
    fn state(&self, state: State, width: usize) -> String {
        let padded = format!("{state:width$}");
        match (self.color, state) {
            (false, _) => padded,
            (true, State::Yes) => format!("\x1b[32m{padded}\x1b[0m"),
            (true, State::No) => format!("\x1b[31m{padded}\x1b[0m"),
            (true, State::Unproven) => format!("\x1b[33m{padded}\x1b[0m"),
        }
    }

    fn instrument(&self, out: &mut String, i: &InstrumentReport) {
        let what = match i.instrument {
            InstrumentKind::Exact => "exact instrument (from outside, the whole lab machine)",
            InstrumentKind::Live => "live instrument (from inside, on this kernel)",
        };
        let _ = writeln!(out, "\n{what}: {}", self.state(i.state, 0));
        if let Some(note) = &i.note {
            let _ = writeln!(out, "  note: {note}");
        }
        for check in &i.checks {
            self.check(out, check);
        }
        capabilities(out, "layers", &i.layers);
        capabilities(out, "boundaries", &i.boundaries);
    }

    fn check(&self, out: &mut String, check: &Check) {
        let _ =
            writeln!(out, "  {} {:16} {}", self.state(check.state, 8), check.name, check.detail);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(out, "  {:8} {:16} → {remedy}", "", "");
        }
    }
}

fn capabilities(out: &mut String, title: &str, all: &[Capability]) {
    let _ = writeln!(out, "  {title}:");
    for c in all {
        let _ = write!(out, "    {:8} {:16}", c.state, c.name);
        match (&c.missing[..], &c.reason) {
            ([], Some(reason)) => drop(writeln!(out, " {reason}")),
            ([], None) => out.push('\n'),
            (missing, _) => drop(writeln!(out, " see {}", missing.join(", "))),
        }
    }
    // Names without anything to add end with the padding of their column.
    *out = out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_collect::doctor::DOCTOR_SCHEMA;

    fn capability(name: &str, state: State, reason: Option<&str>, missing: &[&str]) -> Capability {
        Capability {
            name: name.into(),
            state,
            reason: reason.map(Into::into),
            missing: missing.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    fn report() -> DoctorReport {
        let exact = InstrumentReport {
            instrument: InstrumentKind::Exact,
            state: State::Yes,
            note: None,
            checks: vec![
                Check::yes("qemu", "10.0.2, with plugins, /usr/bin/qemu-system-x86_64"),
                Check::unproven("lab-image", "not built yet", "altaz lab build"),
            ],
            layers: vec![
                capability("app", State::Yes, None, &[]),
                capability("language-runtime", State::Yes, Some("native code"), &[]),
                capability("vmm-helper", State::No, Some("no deployment starts one"), &[]),
            ],
            boundaries: vec![capability("syscall", State::Yes, None, &[])],
        };
        let live = InstrumentReport {
            instrument: InstrumentKind::Live,
            state: State::No,
            note: Some("what this kernel would allow".into()),
            checks: vec![Check::no(
                "tracefs",
                "not mounted at /sys/kernel/tracing",
                "mount -t tracefs tracefs /sys/kernel/tracing",
            )],
            layers: vec![capability("host-kernel", State::No, Some("not mounted"), &["tracefs"])],
            boundaries: vec![capability("syscall", State::No, Some("not mounted"), &["tracefs"])],
        };
        DoctorReport {
            schema: DOCTOR_SCHEMA.into(),
            kernel: "6.12.43-amd64".into(),
            arch: "x86_64".into(),
            cpus: 2,
            memory: Some(24 << 30),
            instruments: vec![exact, live],
            kvm: Check::no("kvm", "/dev/kvm opens, but nothing boots on it", "nothing to do"),
        }
    }

    #[test]
    fn the_text_says_what_works_and_what_to_do_about_the_rest() {
        insta::assert_snapshot!(render(&report(), false));
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let plain = render(&report(), false);
        let colored = render(&report(), true);
        assert!(colored.contains("\x1b[32m") && !plain.contains('\x1b'));
        let stripped = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
            .iter()
            .fold(colored, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }
}
