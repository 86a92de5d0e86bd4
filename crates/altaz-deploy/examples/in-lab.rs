//! Tries a deployment from a shell of the lab, without altaz around it: for writing a new one.
//!
//! `in-lab DEPLOYMENT SPEC.json`, then one word per line on standard input: `status`, `arm`, `read`,
//! `stop`. Build it static, so that it runs in the lab whatever the host's C library is:
//! `RUSTFLAGS='-C target-feature=+crt-static' cargo build -p altaz-deploy --example in-lab
//! --target x86_64-unknown-linux-gnu`.

use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use altaz_deploy::boundary::{Counter, TRACEFS};
use altaz_deploy::{LabEnv, ServiceSpec, by_name};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, spec] = args.as_slice() else {
        return Err("usage: in-lab DEPLOYMENT SPEC".into());
    };
    let deployment = by_name(name).ok_or("no deployment has this name")?;
    let spec: ServiceSpec = serde_json::from_slice(&std::fs::read(spec)?)?;
    let lab = LabEnv::default();
    for dir in [&lab.run, &lab.scratch] {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(lab.run.join("deploy.log"), "")?;
    deployment.available(&lab)?;
    let began = Instant::now();
    let mut running = deployment.start(&lab, &spec)?;
    println!("started after {:.1} s", began.elapsed().as_secs_f64());
    let mut counter = None;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "status" => println!("{:?}\n{}", running.exited(), running.log_tail()),
            "arm" => {
                counter = Some(Counter::arm(Path::new(TRACEFS))?);
                println!("armed");
            }
            "read" => {
                let counts = counter.take().ok_or("not armed")?.read()?;
                let mut boundaries = deployment.describe(&spec).boundaries;
                counts.fill(&mut boundaries);
                println!("dropped {}", counts.dropped);
                println!("{}", serde_json::to_string_pretty(&boundaries)?);
            }
            "stop" => {
                let began = Instant::now();
                running.stop(Duration::from_secs(spec.service.stop_timeout_s.into()))?;
                println!("stopped after {:.1} s", began.elapsed().as_secs_f64());
                let symbols = running.guest_kallsyms().map(|s| s.len());
                println!("guest symbols: {symbols:?} bytes; notes: {:?}", running.notes());
                println!("{}", std::fs::read_to_string(lab.run.join("deploy.log"))?);
                return Ok(());
            }
            other => println!("unknown word {other}"),
        }
    }
    Ok(())
}
