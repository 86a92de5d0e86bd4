//! What can be asked of a running lab.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CONSOLE_LINES, LOOK, LabVm};
use crate::error::{LabError, Result};
use crate::link::Answer;
use crate::protocol::{CHUNK, Event, ExitStatus, RequestBody, RunRequest};

/// Output of a program in the lab, as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<'a> {
    /// Standard output.
    Stdout(&'a [u8]),
    /// Standard error.
    Stderr(&'a [u8]),
}

/// What a program in the lab wrote and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// A program under way in the lab; may be used from several threads.
pub struct RunHandle<'a> {
    vm: &'a LabVm,
    id: u64,
}

impl RunHandle<'_> {
    /// Gives it input; `eof` closes its input.
    ///
    /// # Errors
    /// When the program has ended or the lab is gone.
    pub fn stdin(&self, data: &[u8], eof: bool) -> Result<()> {
        let mut chunks = data.chunks(CHUNK).peekable();
        if chunks.peek().is_none() {
            return self.send(&[], eof);
        }
        while let Some(chunk) = chunks.next() {
            self.send(chunk, eof && chunks.peek().is_none())?;
        }
        Ok(())
    }

    fn send(&self, data: &[u8], eof: bool) -> Result<()> {
        let body = RequestBody::Stdin { target: self.id, eof };
        self.vm.call("pass on input", body, data, None).map(drop)
    }

    /// Sends a signal to it and its children.
    ///
    /// # Errors
    /// When the program has ended or the lab is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let body = RequestBody::Signal { target: self.id, signal };
        self.vm.call("pass on a signal", body, &[], None).map(drop)
    }
}

impl LabVm {
    /// Runs a program to its end; output goes to `output` as it comes.
    ///
    /// # Errors
    /// When it cannot be started, takes longer than `timeout` (it is killed then), or the lab dies.
    pub fn run(
        &self,
        request: RunRequest,
        timeout: Option<Duration>,
        output: &mut dyn FnMut(Output<'_>),
    ) -> Result<ExitStatus> {
        self.run_with(request, timeout, output, |_| Ok(()))
    }

    /// As [`LabVm::run`]; `started` gets a handle for input and signals and may keep it in a
    /// scoped thread.
    ///
    /// # Errors
    /// As [`LabVm::run`], and those of `started`.
    pub fn run_with<'a>(
        &'a self,
        request: RunRequest,
        timeout: Option<Duration>,
        output: &mut dyn FnMut(Output<'_>),
        started: impl FnOnce(RunHandle<'a>) -> Result<()>,
    ) -> Result<ExitStatus> {
        let what = format!("run {}", request.argv.first().map_or("nothing", String::as_str));
        let deadline = timeout.map(|t| Instant::now() + t);
        let (id, answers) = self.link.send(RequestBody::Run(request), &[])?;
        started(RunHandle { vm: self, id })?;
        loop {
            let answer = self.next(&what, &answers, deadline);
            if matches!(answer, Err(LabError::Timeout { .. } | LabError::Interrupted)) {
                // No answer is awaited: the program is on its way out, the lab may be as well.
                let kill = RequestBody::Signal { target: id, signal: nix::libc::SIGKILL };
                let _ = self.link.send(kill, &[]);
            }
            match answer? {
                (Event::Stdout, data) => output(Output::Stdout(&data)),
                (Event::Stderr, data) => output(Output::Stderr(&data)),
                (Event::Exit(status), _) => return Ok(status),
                (Event::Failed(message), _) => return Err(LabError::Agents { what, message }),
                (other, _) => return Err(self.unexpected(&what, &other)),
            }
        }
    }

    /// Runs a program with empty input and collects what it writes.
    ///
    /// # Errors
    /// As [`LabVm::run`].
    pub fn output<S: Into<String>>(
        &self,
        argv: impl IntoIterator<Item = S>,
        timeout: Option<Duration>,
    ) -> Result<RunOutput> {
        let argv = argv.into_iter().map(Into::into).collect();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let request = RunRequest { argv, ..RunRequest::default() };
        let status = self.run(request, timeout, &mut |out| match out {
            Output::Stdout(data) => stdout.extend_from_slice(data),
            Output::Stderr(data) => stderr.extend_from_slice(data),
        })?;
        Ok(RunOutput { status, stdout, stderr })
    }

    /// Writes a file in the lab, with its directories.
    ///
    /// # Errors
    /// When the agent cannot write it.
    pub fn put_file(&self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let what = format!("write {path}");
        let mut append = false;
        let mut rest = data;
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(CHUNK));
            let body = RequestBody::PutFile { path: path.into(), mode, append };
            self.call(&what, body, chunk, None)?;
            if later.is_empty() {
                return Ok(());
            }
            (append, rest) = (true, later);
        }
    }

    /// Reads a file of the lab.
    ///
    /// # Errors
    /// When the agent cannot read it.
    pub fn get_file(&self, path: &str) -> Result<Vec<u8>> {
        let body = RequestBody::GetFile { path: path.into() };
        Ok(self.call(&format!("read {path}"), body, &[], None)?.1)
    }

    /// Has the agent make exactly `calls` `getppid` system calls and nothing else.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn calibrate(&self, calls: u64) -> Result<()> {
        self.call("calibrate", RequestBody::Calibrate { calls }, &[], None).map(drop)
    }

    /// The text of the lab kernel's `/proc/kallsyms`.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn kallsyms(&self) -> Result<Vec<u8>> {
        let body = RequestBody::Kallsyms { guest: false };
        Ok(self.call("list kernel symbols", body, &[], None)?.1)
    }

    /// The same of the nested guest's kernel, after the deployment stopped; `None` if it had none.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn guest_kallsyms(&self) -> Result<Option<Vec<u8>>> {
        let body = RequestBody::Kallsyms { guest: true };
        let (value, data) = self.call("list the guest's kernel symbols", body, &[], None)?;
        Ok((value != Value::Bool(false)).then_some(data))
    }

    /// The vDSO that the lab's kernel maps into programs, an ELF image.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn vdso(&self) -> Result<Vec<u8>> {
        Ok(self.call("read the vDSO", RequestBody::Vdso, &[], None)?.1)
    }

    /// Sends a request that is answered by one result, after chunks of data perhaps.
    ///
    /// # Errors
    /// When the agent refuses, it takes longer than `timeout`, or the lab dies.
    pub fn call(
        &self,
        what: &str,
        body: RequestBody,
        blob: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(Value, Vec<u8>)> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let (_, answers) = match self.link.send(body, blob) {
            Ok(sent) => sent,
            Err(_) => return Err(self.lost(what)),
        };
        let mut data = Vec::new();
        loop {
            match self.next(what, &answers, deadline)? {
                (Event::Data, chunk) => data.extend_from_slice(&chunk),
                (Event::Done(value), _) => return Ok((value, data)),
                (Event::Failed(message), _) => {
                    return Err(LabError::Agents { what: what.to_owned(), message });
                }
                (other, _) => return Err(self.unexpected(what, &other)),
            }
        }
    }

    /// Powers the lab off and waits for its end.
    ///
    /// # Errors
    /// When it does not end within ten seconds; it is killed then.
    pub fn poweroff(self) -> Result<()> {
        self.call("power off", RequestBody::Poweroff, &[], Some(Duration::from_secs(10)))?;
        match self.process.wait(Duration::from_secs(10)) {
            Some(_) => Ok(()),
            None => Err(LabError::Timeout {
                what: "power off".into(),
                seconds: 10.0,
                console: self.console.tail(CONSOLE_LINES),
            }),
        }
    }

    fn next(
        &self,
        what: &str,
        answers: &Receiver<Answer>,
        deadline: Option<Instant>,
    ) -> Result<Answer> {
        let begin = Instant::now();
        loop {
            self.interrupt.check()?;
            match answers.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost(what)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    seconds: begin.elapsed().as_secs_f64(),
                    console: self.console.tail(CONSOLE_LINES),
                });
            }
        }
    }

    fn lost(&self, what: &str) -> LabError {
        LabError::Lost {
            what: what.to_owned(),
            reason: self.process.how_it_ended(),
            console: self.console.tail(CONSOLE_LINES),
        }
    }

    fn unexpected(&self, what: &str, event: &Event) -> LabError {
        LabError::Agents { what: what.to_owned(), message: format!("the agent answered {event:?}") }
    }
}
