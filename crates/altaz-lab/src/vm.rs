//! A running lab: boots it, talks to it, ends it.
//!
//! Nothing of it has a name on the host: descriptors are inherited, inputs are files in memory,
//! the network belongs to this process. When the process dies in whatever way, the kernel kills
//! QEMU and nothing is left.

mod kvm;
mod process;
mod requests;
mod script;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use requests::{Output, RunHandle, RunOutput};

use crate::agent_file::AgentFile;
use crate::console::Console;
use crate::error::{LabError, Result};
use crate::image::{LabImage, ServiceImage};
use crate::initrd::{self, InitrdFor};
use crate::inputs::{self, InputFile};
use crate::interrupt::Interrupt;
use crate::link::{Answer, Link};
use crate::netns::NetNs;
use crate::places;
use crate::protocol::{Event, Hello, PROTOCOL_VERSION};
use crate::qemu::{Accel, Qemu};
use process::{QemuProcess, Start};

pub use kvm::{KvmProof, prove_kvm};
pub use process::PluginAttach;

/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 25;
/// How often a waiter looks at the interrupt flag.
const LOOK: Duration = Duration::from_millis(100);

/// How to boot.
pub struct BootOptions<'a> {
    /// Network in which the lab's other end is.
    pub netns: &'a NetNs,
    /// Disk of the service under test.
    pub service_image: Option<&'a ServiceImage>,
    /// Disks of the other processes of its pod.
    pub more_service_images: Vec<&'a ServiceImage>,
    /// The exact instrument.
    pub plugin: Option<PluginAttach>,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Processors.
    pub cpus: u32,
    /// How the processor is made.
    pub accel: Accel,
    /// Files put into the root at boot.
    pub input_files: Vec<InputFile>,
    /// Words added to the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// Time until the agent must have answered.
    pub timeout: Duration,
    /// Stops the boot, and later every request.
    pub interrupt: Interrupt,
}

impl<'a> BootOptions<'a> {
    /// The usual lab: emulated, two processors, 6 GiB, no service.
    pub fn new(netns: &'a NetNs) -> Self {
        Self {
            netns,
            service_image: None,
            more_service_images: Vec::new(),
            plugin: None,
            memory_mib: 6144,
            cpus: 2,
            accel: Accel::Tcg,
            input_files: Vec::new(),
            kernel_arguments: Vec::new(),
            timeout: Duration::from_secs(180),
            interrupt: Interrupt::new(),
        }
    }
}

/// A running lab VM. Dropping it kills it.
pub struct LabVm {
    link: Arc<Link>,
    process: QemuProcess,
    console: Console,
    hello: Hello,
    boot_time: Duration,
    interrupt: Interrupt,
    netns: NetNs,
}

impl LabVm {
    /// Boots the lab and waits until its agent answers.
    ///
    /// # Errors
    /// When something is missing on the host, or the lab does not come up; then with the end of
    /// its console.
    pub fn boot(image: &LabImage, options: BootOptions<'_>) -> Result<Self> {
        let begin = Instant::now();
        options.interrupt.check()?;
        let qemu = Qemu::find()?;
        let agent = AgentFile::find()?;
        let initrd = initrd::build(image, &agent.bytes, InitrdFor::Lab)?;
        let guest = initrd::build(image, &agent.bytes, InitrdFor::Guest)?;
        let mut inputs = vec![
            InputFile::bytes(places::AGENT, 0o755, agent.bytes),
            InputFile::bytes(places::GUEST_INITRD, 0o644, guest),
        ];
        inputs.extend(options.input_files.iter().cloned());

        let console = Console::default();
        let start = Start {
            qemu: &qemu,
            image,
            services: options
                .service_image
                .into_iter()
                .chain(options.more_service_images.iter().copied())
                .map(ServiceImage::disk)
                .collect(),
            initrd: inputs::memory_file("altaz-initrd", &initrd)?,
            input: inputs::input_disk(&inputs)?,
            tap: options.netns.open_tap()?,
            plugin: options.plugin,
            memory_mib: options.memory_mib,
            cpus: options.cpus,
            accel: options.accel,
            kernel_arguments: &options.kernel_arguments,
        };
        let (process, control) = start.spawn(options.netns, &console)?;
        let (link, greeting) =
            Link::new(control).map_err(LabError::system("start the control channel"))?;
        let waiting = Waiting { process, console, interrupt: options.interrupt };
        let hello = waiting.for_greeting(&greeting, options.timeout)?;
        Ok(Self {
            link: Arc::new(link),
            process: waiting.process,
            console: waiting.console,
            hello,
            boot_time: begin.elapsed(),
            interrupt: waiting.interrupt,
            netns: options.netns.clone(),
        })
    }

    /// What the agent said about the lab.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Time from the call of [`LabVm::boot`] to the agent's greeting.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Process id of QEMU on the host.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The network on whose other end the lab is.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The last lines of the lab's console and of QEMU's own messages.
    pub fn console_tail(&self, lines: usize) -> String {
        self.console.tail(lines)
    }

    /// Whether QEMU still runs.
    pub fn is_alive(&self) -> bool {
        self.process.ended().is_none()
    }
}

impl Drop for LabVm {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// The parts that exist before the agent answered.
struct Waiting {
    process: QemuProcess,
    console: Console,
    interrupt: Interrupt,
}

impl Waiting {
    fn for_greeting(&self, greeting: &Receiver<Answer>, timeout: Duration) -> Result<Hello> {
        let deadline = Instant::now() + timeout;
        loop {
            self.interrupt.check()?;
            let failed = match greeting.recv_timeout(LOOK) {
                Ok((Event::Hello(hello), _)) if hello.protocol == PROTOCOL_VERSION => {
                    return Ok(hello);
                }
                Ok((Event::Hello(hello), _)) => format!(
                    "its agent speaks version {} of the protocol, this altaz {PROTOCOL_VERSION}; \
                     build the agent again",
                    hello.protocol
                ),
                Ok((other, _)) => format!("its agent began with {other:?}"),
                Err(RecvTimeoutError::Disconnected) => self.process.how_it_ended(),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
                Err(RecvTimeoutError::Timeout) => {
                    format!("its agent did not answer within {} s", timeout.as_secs())
                }
            };
            self.process.kill();
            return Err(LabError::Boot {
                reason: failed,
                console: self.console.tail(CONSOLE_LINES),
            });
        }
    }
}
