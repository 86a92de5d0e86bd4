//! What tests and programs have in common that boot the lab themselves: its images, what `make build` makes, a
//! service in it; and how a program ends that looks whether a promise is held.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altaz_deploy::ServiceSpec;
use altaz_lab::protocol::RequestBody;
use altaz_lab::{
    BuildOptions, Interrupt, LabImage, LabVm, Progress, Recipe, ServiceImage, cache_dir,
};

/// Anything that goes wrong is said and ends the program.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Exit code of a program, from the promises that it found broken: 0 without any, 3 with some, 1 when it failed. Says
/// which.
pub fn end(broken: Result<Vec<String>>) -> ExitCode {
    match broken {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|b| eprintln!("not as promised: {b}"));
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The build's directory, three levels above an example (`target/release/examples/NAME`).
///
/// # Errors
/// When the program lies elsewhere.
pub fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).ok_or("this program lies in no target directory")?;
    Ok(target.to_owned())
}

/// A file that `make build` makes.
///
/// # Errors
/// When it is missing.
pub fn present(path: PathBuf) -> Result<PathBuf> {
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is missing: `make build` makes it", path.display()).into()),
    }
}

/// The lab's image, built when there is none; `say` is told what is done.
///
/// # Errors
/// When it cannot be built.
pub fn lab_image(mut say: impl FnMut(&str)) -> Result<LabImage> {
    Ok(LabImage::ensure(&Recipe::builtin()?, &mut options(&mut say))?)
}

/// The service of a spec and its image, built when there is none; `say` is told what is done.
///
/// # Errors
/// When the spec cannot be read, or the image cannot be built.
pub fn service(spec: &Path, mut say: impl FnMut(&str)) -> Result<(ServiceSpec, ServiceImage)> {
    let text = std::fs::read_to_string(spec).map_err(|e| format!("{}: {e}", spec.display()))?;
    let spec = ServiceSpec::parse(&text, spec).map_err(|e| e.to_string())?;
    let image = ServiceImage::ensure(&spec.image, &mut options(&mut say))?;
    Ok((spec, image))
}

fn options(progress: &mut dyn Progress) -> BuildOptions<'_> {
    BuildOptions { cache: cache_dir(), progress, interrupt: Interrupt::new() }
}

/// Starts a service in a lab that has its image, in a deployment (`process`: as plain processes).
///
/// # Errors
/// When it cannot be started within that time, or the lab lacks what the deployment needs.
pub fn start(
    vm: &LabVm,
    spec: &ServiceSpec,
    deployment: &str,
    within: Option<Duration>,
) -> Result<()> {
    let spec = serde_json::to_value(spec)?;
    let body = RequestBody::DeployStart { deployment: deployment.into(), spec };
    let (answer, _) = vm.call("start the service", body, &[], within)?;
    match answer.get("unavailable") {
        Some(why) => Err(format!("not available: {why}").into()),
        None => Ok(()),
    }
}
