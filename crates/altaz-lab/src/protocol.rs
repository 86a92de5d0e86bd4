//! The words between altaz and the agent inside the lab.
//!
//! A frame is a 12-byte header (magic, JSON length, blob length; little endian), a JSON message
//! and an optional blob of raw bytes. Everything read is untrusted: sizes are bounded and no
//! input panics. No file, process or device is touched here.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// First word of every frame, so that a stream out of step is noticed at once.
pub const MAGIC: u32 = 0x5a54_4c41; // "ALTZ"
/// Largest JSON part of a frame, in bytes.
pub const MAX_JSON: usize = 4 << 20;
/// Largest blob of a frame, in bytes; longer data goes in several frames.
pub const MAX_BLOB: usize = 1 << 20;
/// Blob size that senders use for streams, in bytes.
pub const CHUNK: usize = 64 << 10;
/// Name of the virtio-serial port of the control channel.
pub const CONTROL_PORT: &str = "altaz.control";
/// Version of this protocol; the host refuses an agent that says another one.
pub const PROTOCOL_VERSION: u32 = 1;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream does not start with the magic word.
    #[error("stream out of step: frame starts with {found:#010x}, not {MAGIC:#010x}")]
    Magic {
        /// What was read instead.
        found: u32,
    },
    /// A length beyond the limit.
    #[error(
        "frame too large: {json} bytes of JSON (limit {MAX_JSON}), {blob} of data (limit {MAX_BLOB})"
    )]
    TooLarge {
        /// JSON bytes announced.
        json: usize,
        /// Blob bytes announced.
        blob: usize,
    },
    /// The JSON part is not a message of this protocol.
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream failed or ended inside a frame.
    #[error("control channel: {0}")]
    Io(#[from] io::Error),
}

/// Writes one frame and flushes.
pub fn write_frame<W: Write, T: Serialize>(
    out: &mut W,
    message: &T,
    blob: &[u8],
) -> Result<(), FrameError> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_JSON || blob.len() > MAX_BLOB {
        return Err(FrameError::TooLarge { json: json.len(), blob: blob.len() });
    }
    let mut frame = Vec::with_capacity(12 + json.len() + blob.len());
    frame.extend_from_slice(&MAGIC.to_le_bytes());
    frame.extend_from_slice(&(json.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(blob.len() as u32).to_le_bytes());
    frame.extend_from_slice(&json);
    frame.extend_from_slice(blob);
    out.write_all(&frame)?;
    out.flush()?;
    Ok(())
}

/// Reads one frame; `None` if the stream ended between frames.
pub fn read_frame<R: Read, T: DeserializeOwned>(
    input: &mut R,
) -> Result<Option<(T, Vec<u8>)>, FrameError> {
    let mut header = [0u8; 12];
    let mut filled = 0;
    while filled < header.len() {
        match input.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(0) != MAGIC {
        return Err(FrameError::Magic { found: word(0) });
    }
    let (json_len, blob_len) = (word(4) as usize, word(8) as usize);
    if json_len > MAX_JSON || blob_len > MAX_BLOB {
        return Err(FrameError::TooLarge { json: json_len, blob: blob_len });
    }
    let mut json = vec![0; json_len];
    input.read_exact(&mut json)?;
    let mut blob = vec![0; blob_len];
    input.read_exact(&mut blob)?;
    Ok(Some((serde_json::from_slice(&json)?, blob)))
}

/// A request with the number under which its answers come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host, unique in a connection, never 0.
    pub id: u64,
    /// What is asked.
    pub body: RequestBody,
}

/// What the host asks of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestBody {
    /// Who are you? Answered by [`Event::Hello`].
    Hello,
    /// Run a program; [`Event::Stdout`] and [`Event::Stderr`] stream, [`Event::Exit`] ends.
    Run(RunRequest),
    /// More standard input (the blob) for a running `Run` with streamed input.
    Stdin {
        /// Request id of the run.
        target: u64,
        /// Close the input after this blob.
        eof: bool,
    },
    /// Send a signal to the process of a running `Run`.
    Signal {
        /// Request id of the run.
        target: u64,
        /// Signal number.
        signal: i32,
    },
    /// Write the blob to a file, making parent directories. Answered by `Done`.
    PutFile {
        /// Absolute path in the lab.
        path: String,
        /// Permission bits of a new file.
        mode: u32,
        /// Append instead of replacing.
        append: bool,
    },
    /// Read a file; [`Event::Data`] chunks, then `Done`.
    GetFile {
        /// Absolute path in the lab.
        path: String,
    },
    /// Make exactly this many `getppid` system calls in a tight loop. Answered by `Done`.
    Calibrate {
        /// Number of calls.
        calls: u64,
    },
    /// Start the service of this spec in a deployment. `Done` when started, not when ready.
    DeployStart {
        /// Name of the deployment.
        deployment: String,
        /// The service spec and image configuration, as altaz-deploy writes it.
        spec: serde_json::Value,
    },
    /// Stop the service and wait for its end.
    DeployStop,
    /// State of the service: running or how it died, with the tail of its output.
    DeployStatus,
    /// What the running service can reach on its host.
    DeployReachable,
    /// Processes, mounts, network and cgroups that are there now, one line each.
    DeployTraces,
    /// Begin to count system calls, VM exits and other boundary crossings.
    BoundaryArm,
    /// Read the counts and stop counting.
    BoundaryRead,
    /// The lab kernel's `/proc/kallsyms`: [`Event::Data`] chunks, then `Done`.
    Kallsyms {
        /// The nested guest's symbols as it left them at its end, instead of the lab's.
        guest: bool,
    },
    /// The vDSO that the lab's kernel maps into programs: [`Event::Data`], then `Done`.
    Vdso,
    /// Sync and power off; the channel ends.
    Poweroff,
}

/// How to run a program in the lab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Program and arguments; found by the lab's `PATH`.
    pub argv: Vec<String>,
    /// Variables added to the lab's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory, `/root` if not given.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Standard input comes in `Stdin` requests; otherwise it is empty.
    #[serde(default)]
    pub stdin: bool,
    /// Give the program a terminal of (rows, columns); its output all comes as stdout.
    #[serde(default)]
    pub tty: Option<(u16, u16)>,
}

/// An answer of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request answered; 0 for the greeting after boot.
    pub id: u64,
    /// The answer.
    pub event: Event,
}

/// What the agent says about a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent is there; ends a `Hello`.
    Hello(Hello),
    /// Output of a run (the blob).
    Stdout,
    /// Error output of a run (the blob).
    Stderr,
    /// A run ended.
    Exit(ExitStatus),
    /// Part of a file (the blob).
    Data,
    /// The request is done, with its result.
    Done(serde_json::Value),
    /// The request failed.
    Failed(String),
}

impl Event {
    /// No more answers to this request will follow.
    pub fn is_last(&self) -> bool {
        !matches!(self, Event::Stdout | Event::Stderr | Event::Data)
    }
}

/// What the lab is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// Kernel release (`uname -r`).
    pub kernel_release: String,
    /// Kernel version (`uname -v`).
    pub kernel_version: String,
    /// Machine (`uname -m`).
    pub machine: String,
    /// CPU model name.
    pub cpu: String,
    /// CPUs online.
    pub cpus: usize,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// Seconds since the lab's kernel started.
    pub boot_seconds: f64,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// The code a shell would report: the exit code, or 128 + signal.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_comes_back_as_it_was_sent() {
        let request = Request {
            id: 7,
            body: RequestBody::PutFile { path: "/x".into(), mode: 0o644, append: false },
        };
        let mut stream = Vec::new();
        write_frame(&mut stream, &request, b"bytes").unwrap();
        write_frame(&mut stream, &Request { id: 8, body: RequestBody::Hello }, b"").unwrap();
        let mut input = stream.as_slice();
        let (first, blob): (Request, _) = read_frame(&mut input).unwrap().unwrap();
        assert_eq!((first, blob.as_slice()), (request, &b"bytes"[..]));
        let (second, _): (Request, _) = read_frame(&mut input).unwrap().unwrap();
        assert_eq!(second.body, RequestBody::Hello);
        assert!(read_frame::<_, Request>(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_stream_cut_inside_a_frame_is_an_error_not_an_end() {
        let mut stream = Vec::new();
        write_frame(&mut stream, &Request { id: 1, body: RequestBody::Poweroff }, b"abc").unwrap();
        for cut in 1..stream.len() {
            assert!(read_frame::<_, Request>(&mut &stream[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn announced_sizes_are_refused_before_memory_is_taken() {
        let mut frame = Vec::new();
        for word in [MAGIC, u32::MAX, 0] {
            frame.extend_from_slice(&word.to_le_bytes());
        }
        let error = read_frame::<_, Request>(&mut frame.as_slice()).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_frame::<_, Request>(&mut bytes.as_slice());
        }

        #[test]
        fn damaged_frames_never_panic(at in 0usize..100, value in any::<u8>(), argv in proptest::collection::vec(".*", 0..4)) {
            let mut stream = Vec::new();
            let body = RequestBody::Run(RunRequest { argv, ..RunRequest::default() });
            write_frame(&mut stream, &Request { id: 3, body }, b"blob").unwrap();
            let at = at % stream.len();
            stream[at] = value;
            let _ = read_frame::<_, Request>(&mut stream.as_slice());
        }

        #[test]
        fn any_run_request_round_trips(id in any::<u64>(), argv in proptest::collection::vec(".*", 0..4), blob in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let request = Request { id, body: RequestBody::Run(RunRequest { argv, stdin: true, ..RunRequest::default() }) };
            let mut stream = Vec::new();
            write_frame(&mut stream, &request, &blob).unwrap();
            let (back, back_blob): (Request, Vec<u8>) = read_frame(&mut stream.as_slice()).unwrap().unwrap();
            prop_assert_eq!(back, request);
            prop_assert_eq!(back_blob, blob);
        }
    }
}
