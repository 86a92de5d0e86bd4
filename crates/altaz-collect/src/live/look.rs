//! Looking again at the target's processes, beside the recording: reading `/proc` of a large machine takes long, and
//! whoever waits for news must not wait for it.
//!
//! Here is when that is done and on which thread; what follows from it is the session's.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use altaz_ftrace::Ration;
use altaz_target::{Changes, Roots, Target, TargetError};

use super::error::LiveError;

/// The target's processes are looked at again as often as takes no more than one part in so many of
/// a CPU: looking at all processes of a machine is dear on a large or slow one, and those of the
/// target that are forked meanwhile are followed by the kernel's own means.
const SHARE: u32 = 1000;
/// Not more often, and not less.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// At first, when a command maps its libraries, they are looked at again after this long, and then
/// after twice as long each time.
const FIRST: Duration = Duration::from_millis(20);
/// How often it is looked whether a process has ended, which is cheap.
const ALIVE: (Duration, Duration) = (Duration::from_millis(900), Duration::from_secs(3));

/// A look that is over.
type Found = Result<(Target, Changes), TargetError>;

/// When the next look is due, and the one that is under way.
pub(super) struct Looks {
    ration: Ration,
    /// Time until the next look while the target is young; doubled until it is longer than any interval.
    young: Duration,
    looked: Instant,
    asks: Ration,
    under_way: Option<JoinHandle<(Found, Duration)>>,
}

impl Looks {
    /// `young` says that the target is a command which has not begun yet.
    pub(super) fn new(young: bool) -> Self {
        Self {
            ration: Ration::new(SHARE, EVERY.0, EVERY.1),
            // What a service has mapped it had mapped when it was found.
            young: if young { FIRST } else { EVERY.0 },
            looked: Instant::now(),
            asks: Ration::new(SHARE, ALIVE.0, ALIVE.1),
            under_way: None,
        }
    }

    /// How long a window may last at most, so that a command that has just begun is looked at when that is due: it
    /// maps its files at once, and may be over before an ordinary window is.
    pub(super) fn at_most(&self) -> Option<Duration> {
        (self.young < EVERY.0).then_some(self.young)
    }

    /// Looks now, and waits for it. One that is under way is forgotten.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(super) fn now(
        &mut self,
        target: &mut Target,
        roots: &Roots,
    ) -> Result<Changes, TargetError> {
        self.forget();
        let begin = Instant::now();
        let changes = target.refresh(roots)?;
        self.took(begin.elapsed());
        Ok(changes)
    }

    /// Begins to look when it is time, or when a process has ended.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn begin(&mut self, target: &Target, roots: &Roots) -> Result<(), LiveError> {
        if self.under_way.is_some() {
            return Ok(());
        }
        let due = self.ration.is_due() || self.looked.elapsed() >= self.young;
        if !due && !self.somebody_ended(target, roots) {
            return Ok(());
        }
        self.young = self.young.saturating_mul(2);
        let (mut target, roots) = (target.clone(), roots.clone());
        let look = move || {
            let begin = Instant::now();
            let changes = target.refresh(&roots);
            (changes.map(|changes| (target, changes)), begin.elapsed())
        };
        let thread = std::thread::Builder::new().name("look".into());
        self.under_way = Some(thread.spawn(look).map_err(LiveError::Thread)?);
        Ok(())
    }

    /// What the look that is under way has found, once it is over; does not wait.
    ///
    /// # Errors
    /// When `/proc` could not be read.
    pub(super) fn end(&mut self) -> Result<Option<(Target, Changes)>, TargetError> {
        let Some(thread) = self.under_way.take_if(|thread| thread.is_finished()) else {
            return Ok(None);
        };
        match thread.join() {
            Ok((found, took)) => {
                self.took(took);
                found.map(Some)
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Forgets a look that is under way: what it looks at is about to be changed.
    pub(super) fn forget(&mut self) {
        self.under_way = None;
    }

    fn took(&mut self, took: Duration) {
        self.looked = Instant::now();
        self.ration.took(took);
    }

    /// Whether a process of the target has ended since the last look. Asked once in a while.
    fn somebody_ended(&mut self, target: &Target, roots: &Roots) -> bool {
        if !self.asks.is_due() {
            return false;
        }
        // One whose parent has not asked for its end yet has ended all the same.
        let alive = |pid: u32| {
            std::fs::read_to_string(roots.proc.join(pid.to_string()).join("stat"))
                .is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
        };
        self.asks.spend(|| target.processes.iter().any(|p| !alive(p.pid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_target::{Request, resolve};

    /// A process that does nothing, ended with the test.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start() -> (Self, Target, Roots) {
            #[allow(clippy::disallowed_methods, reason = "a test's own child")]
            let sleeper = Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
            let roots = Roots::here();
            let target = resolve(&roots, &Request::Pids(vec![sleeper.0.id()])).unwrap();
            (sleeper, target, roots)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn wait(looks: &mut Looks) -> (Target, Changes) {
        let begin = Instant::now();
        loop {
            if let Some(found) = looks.end().unwrap() {
                return found;
            }
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_look_is_begun_and_its_end_is_not_waited_for() {
        let (sleeper, target, roots) = Sleeper::start();
        let mut looks = Looks::new(false);
        assert!(looks.end().unwrap().is_none(), "none is under way");
        looks.begin(&target, &roots).unwrap();
        let (again, changes) = wait(&mut looks);
        let pids: Vec<u32> = again.processes.iter().map(|p| p.pid).collect();
        assert_eq!((pids, changes), (vec![sleeper.0.id()], Changes::default()));
        looks.begin(&target, &roots).unwrap();
        assert!(looks.under_way.is_none(), "it was looked just now");
    }

    #[test]
    fn a_process_that_has_ended_hurries_the_next_look() {
        let (sleeper, mut target, roots) = Sleeper::start();
        let mut looks = Looks::new(false);
        looks.now(&mut target, &roots).unwrap();
        looks.begin(&target, &roots).unwrap();
        assert!(looks.under_way.is_none(), "nobody has ended");
        let pid = sleeper.0.id();
        drop(sleeper);
        looks.asks = Ration::new(SHARE, ALIVE.0, ALIVE.1);
        looks.begin(&target, &roots).unwrap();
        let (again, changes) = wait(&mut looks);
        assert_eq!((again.processes.len(), changes.gone), (0, vec![pid]));
        looks.asks = Ration::new(SHARE, ALIVE.0, ALIVE.1);
        looks.begin(&target, &roots).unwrap();
        looks.forget();
        assert!(looks.end().unwrap().is_none());
    }
}
