//! A lab VM with the exact instrument attached: windows are taken here while something happens
//! elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use altaz_collect::exact::channel::Channel;
use altaz_collect::exact::recording::{Purpose, Recording};
use altaz_lab::{BootOptions, Interrupt, LabImage, LabVm, NetNs, PluginAttach, ServiceImage};
use altaz_profile::Phase;
use anyhow::{Context, Result, anyhow};

use super::images::ImageCode;

/// Length of a window.
pub const WINDOW: Duration = Duration::from_millis(500);

/// What a session needs.
pub struct Parts<'a> {
    /// The private network.
    pub netns: &'a NetNs,
    /// The lab.
    pub lab: &'a LabImage,
    /// Its code.
    pub lab_code: &'a ImageCode,
    /// The images of the service; of a pod several, that of the service itself first.
    pub services: &'a [ServiceImage],
    /// Their code.
    pub service_code: &'a [ImageCode],
    /// The plugin's shared object.
    pub plugin: &'a std::path::Path,
    /// Set when the user wants to stop.
    pub interrupt: &'a Interrupt,
}

/// A running lab and the recording so far.
pub struct Session<'a> {
    /// The lab.
    pub vm: Arc<LabVm>,
    /// What was recorded.
    pub recording: Recording,
    /// Plugin API version of QEMU.
    pub api_version: u32,
    /// Set when what runs beside the windows has become pointless; whoever runs there looks at it.
    pub cancelled: Arc<AtomicBool>,
    channel: Channel,
    parts: &'a Parts<'a>,
    next: Instant,
}

impl<'a> Session<'a> {
    /// Boots a fresh lab with the instrument; blocks of `split_pages` are told apart by address
    /// space.
    pub fn boot(parts: &'a Parts<'a>, split_pages: Vec<u128>) -> Result<Self> {
        let (attach, stream) = PluginAttach::new(parts.plugin)?;
        // QEMU waits for the configuration before it starts the machine, and `boot` for the machine.
        let greet = std::thread::spawn(move || Channel::open(stream, split_pages));
        let mut options = BootOptions::new(parts.netns);
        options.service_image = parts.services.first();
        options.more_service_images = parts.services.iter().skip(1).collect();
        options.plugin = Some(attach);
        options.interrupt = parts.interrupt.clone();
        let vm = LabVm::boot(parts.lab, options).context("booting the lab")?;
        let channel = greet
            .join()
            .map_err(|_| anyhow!("the thread that greets the instrument died"))?
            .context("attaching the exact instrument")?;
        let mut session = Self {
            vm: Arc::new(vm),
            recording: Recording::default(),
            api_version: channel.hello().api_version,
            cancelled: Arc::new(AtomicBool::new(false)),
            channel,
            parts,
            next: Instant::now(),
        };
        session.close(Purpose::Aside)?;
        Ok(session)
    }

    /// Ends the current window, which was for `purpose`, and begins the next.
    pub fn close(&mut self, purpose: Purpose) -> Result<()> {
        let snapshot = self.channel.window().map_err(|error| {
            let tail = self.vm.console_tail(20);
            anyhow::Error::new(error).context(format!("the lab's console ended with:\n{tail}"))
        })?;
        let known = |hash| {
            !self.parts.lab_code.index.lookup(hash).is_empty()
                || self.parts.service_code.iter().any(|c| !c.index.lookup(hash).is_empty())
        };
        self.recording.add(snapshot, purpose, known)?;
        self.next = Instant::now() + WINDOW;
        Ok(())
    }

    /// Waits until the current window is [`WINDOW`] long and ends it.
    fn tick(&mut self, purpose: Purpose) -> Result<()> {
        while let Some(left) = self.next.checked_duration_since(Instant::now()) {
            self.parts.interrupt.check()?;
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        self.close(purpose)
    }

    /// Takes one whole window.
    pub fn window(&mut self, phase: Phase) -> Result<()> {
        self.tick(Purpose::Phase(phase))
    }

    /// Takes windows until the thread has ended; `look` is called after each. When that fails, the
    /// thread is told by [`Self::cancelled`] and its end awaited.
    pub fn windows_while<T>(
        &mut self,
        phase: Phase,
        thread: ScopedJoinHandle<'_, T>,
        mut look: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<T> {
        let begin = Instant::now();
        let outcome = loop {
            let ended = thread.is_finished();
            match self.tick(Purpose::Phase(phase)).and_then(|()| look(self)) {
                Ok(()) if ended => break Ok(()),
                Ok(()) => {}
                Err(e) => {
                    self.cancelled.store(true, Ordering::SeqCst);
                    break Err(e);
                }
            }
        };
        let value = thread.join().map_err(|_| {
            anyhow!(
                "a thread of altaz died after {:.0} s in {phase}",
                begin.elapsed().as_secs_f64()
            )
        });
        outcome.and(value)
    }

    /// Takes windows while `f` talks to the lab in a thread of its own.
    pub fn windows_during<T: Send>(
        &mut self,
        phase: Phase,
        f: impl FnOnce(&LabVm) -> T + Send,
    ) -> Result<T> {
        let vm = Arc::clone(&self.vm);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("altaz-lab-call".into())
                .spawn_scoped(scope, move || f(&vm))
                .context("starting a thread")?;
            self.windows_while(phase, thread, |_| Ok(()))
        })
    }

    /// Powers the lab off and hands the recording out.
    pub fn finish(self) -> (Recording, Result<()>) {
        let off = match Arc::try_unwrap(self.vm) {
            Ok(vm) => vm.poweroff().map_err(Into::into),
            Err(_) => Err(anyhow!("the lab is still in use")),
        };
        (self.recording, off)
    }
}
