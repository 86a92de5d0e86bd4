//! The socket to the plugin inside QEMU.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use altaz_wire::{FromPlugin, Hello, PageHash, Snapshot, ToPlugin, WIRE_VERSION, WireError};

/// Why the instrument cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The stream is broken.
    #[error("the exact instrument stopped answering ({0}); QEMU has probably ended")]
    Wire(#[from] WireError),
    /// Writing failed.
    #[error("the exact instrument cannot be reached ({0}); QEMU has probably ended")]
    Write(#[source] io::Error),
    /// The plugin is of another version.
    #[error(
        "the QEMU plugin speaks protocol {found}, this altaz {WIRE_VERSION}: build both from the same source"
    )]
    Version {
        /// The plugin's version.
        found: u32,
    },
    /// An answer that was not asked for.
    #[error("the exact instrument answered out of turn: {0}")]
    OutOfTurn(&'static str),
}

/// A connection to the plugin.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    hello: Hello,
    next: u32,
}

impl Channel {
    /// Takes the greeting and sends the configuration. Until then QEMU does not start the machine.
    ///
    /// # Errors
    /// When the plugin does not greet within a minute, or is of another version.
    pub fn open(stream: UnixStream, split_pages: Vec<PageHash>) -> Result<Self, ChannelError> {
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(ChannelError::Write)?;
        let hello = match FromPlugin::read(&mut BufReader::with_capacity(1, &stream))? {
            FromPlugin::Hello(hello) => hello,
            FromPlugin::Snapshot(_) => return Err(ChannelError::OutOfTurn("no greeting")),
        };
        if hello.wire_version != WIRE_VERSION {
            return Err(ChannelError::Version { found: hello.wire_version });
        }
        ToPlugin::Config { split_pages }.write(&mut &stream).map_err(ChannelError::Write)?;
        Ok(Self { stream, hello, next: 0 })
    }

    /// The plugin's greeting.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Closes the current window: all executions since the last call.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn window(&mut self) -> Result<Snapshot, ChannelError> {
        let id = self.next;
        self.next += 1;
        ToPlugin::Window { id }.write(&mut &self.stream).map_err(ChannelError::Write)?;
        match FromPlugin::read(&mut BufReader::with_capacity(1 << 20, &self.stream))? {
            FromPlugin::Snapshot(snapshot) if snapshot.id == id => Ok(snapshot),
            FromPlugin::Snapshot(_) => Err(ChannelError::OutOfTurn("a snapshot of another window")),
            FromPlugin::Hello(_) => Err(ChannelError::OutOfTurn("a second greeting")),
        }
    }
}
