//! The tail of what the lab and QEMU print, kept for the errors.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes kept.
const KEEP: usize = 64 << 10;

/// A shared ring of the last bytes printed.
#[derive(Clone, Default)]
pub(crate) struct Console {
    ring: Arc<Mutex<VecDeque<u8>>>,
}

impl Console {
    /// Reads from a stream until its end, in a thread.
    pub(crate) fn follow(
        &self,
        name: &str,
        mut from: impl Read + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let this = self.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => this.push(&buffer[..n]),
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })
    }

    fn push(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.extend(bytes);
        let excess = ring.len().saturating_sub(KEEP);
        ring.drain(..excess);
    }

    /// The last `lines` lines, as text without control characters.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = ring.iter().copied().collect();
        drop(ring);
        let text = readable(&bytes);
        let all: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Text without escape sequences and control characters.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // ESC [ … letter, or ESC and one character.
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| c.is_ascii_alphabetic());
                }
            }
            '\n' => out.push('\n'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_readable_and_bounded() {
        let console = Console::default();
        console.push(b"\x1b[2J\x1bcSeaBIOS\r\n\x1b[1;31mpanic\x1b[0m: no root\r\n\r\n");
        assert_eq!(console.tail(5), "SeaBIOS\npanic: no root");
        assert_eq!(console.tail(1), "panic: no root");
        console.push(&vec![b'x'; 200 << 10]);
        assert_eq!(console.tail(9).len(), KEEP);
    }

    #[test]
    fn everything_of_a_stream_is_read() {
        let console = Console::default();
        console.follow("test", &b"one\ntwo\n"[..]).unwrap().join().unwrap();
        assert_eq!(console.tail(9), "one\ntwo");
    }
}
