//! Starts a service in a deployment, asks it a few times over the lab's network, stops it:
//! `cargo run -p altaz-lab --example lab-serve -- demo/redis.toml qemu-microvm`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use altaz_deploy::{LoadKind, ServiceSpec};
use altaz_lab::places::SERVICE_ADDRESS;
use altaz_lab::protocol::RequestBody;
use altaz_lab::{
    BootOptions, BuildOptions, Interrupt, LabImage, LabVm, NetNs, Recipe, ServiceImage, cache_dir,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab-serve: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(spec), Some(deployment)) = (args.next(), args.next()) else {
        return Err("usage: lab-serve SPEC.toml DEPLOYMENT".into());
    };
    let spec = ServiceSpec::load(Path::new(&spec))?;
    let begin = Instant::now();
    let mut progress = |step: &str| eprintln!("{:6.1} s {step}", begin.elapsed().as_secs_f64());
    let mut options =
        BuildOptions { cache: cache_dir(), progress: &mut progress, interrupt: Interrupt::new() };
    let image = LabImage::ensure(&Recipe::builtin()?, &mut options)?;
    let service = ServiceImage::ensure(&spec.image, &mut options)?;
    let say = |what: &str| eprintln!("{:6.1} s {what}", begin.elapsed().as_secs_f64());
    let netns = NetNs::new()?;
    let mut options = BootOptions::new(&netns);
    options.service_image = Some(&service);
    let vm = LabVm::boot(&image, options)?;
    say("booted");
    let body = RequestBody::DeployStart { deployment, spec: serde_json::to_value(&spec)? };
    let (started, _) = vm.call("start the service", body, &[], None)?;
    say(&format!("started: {started}"));
    let address = SocketAddr::from((SERVICE_ADDRESS, spec.service.port));
    let load = spec.load.kind.clone();
    let ready = Instant::now();
    loop {
        let load = load.clone();
        match netns.run(move || ask(address, &load)) {
            Ok(answer) => {
                say(&format!("answered: {answer}"));
                break;
            }
            Err(e) if ready.elapsed() > Duration::from_secs(120) => {
                let (status, _) = vm.call("ask", RequestBody::DeployStatus, &[], None)?;
                say(&format!("never ready ({e}): {status:#}"));
                break;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
        }
    }
    for _ in 0..20 {
        let load = load.clone();
        netns.run(move || ask(address, &load))?;
    }
    say("20 more answers");
    let (status, _) = vm.call("ask", RequestBody::DeployStatus, &[], None)?;
    say(&format!("status: {status:#}"));
    let (stopped, _) = vm.call("stop the service", RequestBody::DeployStop, &[], None)?;
    say(&format!("stopped: {stopped:#}"));
    let guest = vm.guest_kallsyms()?.map_or(0, |text| text.split(|&b| b == b'\n').count());
    say(&format!("{guest} symbols of the guest; {} bytes of the lab's", vm.kallsyms()?.len()));
    vm.poweroff()?;
    say("off");
    Ok(())
}

fn ask(address: SocketAddr, load: &LoadKind) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    match load {
        LoadKind::Http(http) => {
            let body = &http.body;
            let kind = http.content_type.as_deref().unwrap_or("text/plain");
            write!(
                stream,
                "{} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                http.method,
                http.path,
                body.len()
            )?;
        }
        LoadKind::Command(_) => stream.write_all(b"PING\r\n")?,
    }
    let mut answer = [0; 512];
    let n = stream.read(&mut answer)?;
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer[..n]).lines().next().unwrap_or_default().to_owned())
}
