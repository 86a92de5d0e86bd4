//! `altaz lab build | run | shell`.

mod shell;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use altaz_lab::protocol::{ExitStatus, RunRequest};
use altaz_lab::vm::Output;
use altaz_lab::{
    BootOptions, BuildOptions, LabImage, LabVm, NetNs, Progress, Recipe, become_unprivileged_root,
};
use anyhow::Context as _;

use crate::cli::{Context, LabArgs, LabRunArgs, LabVerb, Transfer};
use crate::exit::Exit;
use crate::output;
use crate::ui::{Step, Ui};

pub(crate) fn run(args: &LabArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    match &args.verb {
        LabVerb::Build => {
            let image = image(cx)?;
            output::write_stdout(&format!("{}\n", image.dir().display()))?;
            Ok(Exit::Fine.into())
        }
        LabVerb::Run(args) => run_command(args, cx),
        LabVerb::Shell => {
            let vm = boot(cx)?;
            let status = shell::run(&vm)?;
            vm.poweroff()?;
            Ok(code(&status))
        }
    }
}

/// The lab's image, built now if it is not there.
pub(crate) fn image(cx: &Context) -> anyhow::Result<LabImage> {
    let recipe = match &cx.settings.recipe {
        Some(path) => Recipe::load(path)?,
        None => Recipe::builtin()?,
    };
    building(cx, |options| LabImage::ensure(&recipe, options))
}

/// Runs a build that shows its steps.
pub(crate) fn building<T>(
    cx: &Context,
    build: impl FnOnce(&mut BuildOptions<'_>) -> altaz_lab::Result<T>,
) -> anyhow::Result<T> {
    let mut progress = BuildProgress::new(&cx.ui);
    let built = build(&mut BuildOptions {
        cache: cx.settings.cache_dir.clone(),
        progress: &mut progress,
        interrupt: cx.lab_interrupt(),
    })?;
    progress.finish();
    Ok(built)
}

/// Shows the steps of a build, one after the other.
struct BuildProgress<'a> {
    ui: &'a Ui,
    step: Option<Step>,
}

impl<'a> BuildProgress<'a> {
    fn new(ui: &'a Ui) -> Self {
        Self { ui, step: None }
    }

    /// The last step is over.
    fn finish(&mut self) {
        if let Some(step) = self.step.take() {
            step.done("");
        }
    }
}

impl Progress for BuildProgress<'_> {
    fn step(&mut self, what: &str) {
        self.finish();
        self.step = Some(self.ui.step(what, None));
    }

    fn line(&mut self, line: &str) {
        if let Some(step) = &self.step {
            step.detail(line);
        }
    }
}

fn boot(cx: &Context) -> anyhow::Result<LabVm> {
    let image = image(cx)?;
    become_unprivileged_root()?;
    let netns = NetNs::new()?;
    let mut options = BootOptions::new(&netns);
    options.interrupt = cx.lab_interrupt();
    let step = cx.ui.step("booting the lab", None);
    let vm = LabVm::boot(&image, options)?;
    step.done(&format!("Linux {}", vm.hello().kernel_release));
    Ok(vm)
}

fn run_command(args: &LabRunArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    // Files that cannot be read are noticed before anything is built or booted.
    let put = args.put.iter().map(read_local).collect::<anyhow::Result<Vec<_>>>()?;
    let vm = boot(cx)?;
    for (path, mode, data) in &put {
        vm.put_file(path, *mode, data)?;
    }
    let request = RunRequest {
        argv: args.command.clone(),
        cwd: args.workdir.clone(),
        ..RunRequest::default()
    };
    let mut failed = None;
    let status = vm.run(request, None, &mut |out| {
        let written = match out {
            Output::Stdout(data) => pass_on(&mut std::io::stdout().lock(), data),
            Output::Stderr(data) => pass_on(&mut std::io::stderr().lock(), data),
        };
        if let Err(e) = written {
            failed.get_or_insert(e);
        }
    })?;
    for Transfer { from, to } in &args.get {
        let data = vm.get_file(from)?;
        output::write_file(Path::new(to), &data)?;
    }
    vm.poweroff()?;
    match failed {
        Some(e) => Err(e).context("cannot write the command's output"),
        None => Ok(code(&status)),
    }
}

fn read_local(put: &Transfer) -> anyhow::Result<(String, u32, Vec<u8>)> {
    let what = || format!("cannot read {} for the lab", put.from);
    let mode = std::fs::metadata(&put.from).with_context(what)?.permissions().mode() & 0o7777;
    let data = std::fs::read(&put.from).with_context(what)?;
    Ok((put.to.clone(), mode, data))
}

/// Writes output of the lab. That nobody reads on is no error.
fn pass_on(stream: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    match stream.write_all(data).and_then(|()| stream.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The exit code of a program in the lab, as a shell would say it.
fn code(status: &ExitStatus) -> ExitCode {
    ExitCode::from(u8::try_from(status.shell_code() & 0xff).unwrap_or(1))
}
