//! The host's end of the control channel: requests out, answers sorted to whoever waits.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::protocol::{Event, FrameError, Reply, Request, RequestBody, read_frame, write_frame};

/// An answer and its blob.
pub(crate) type Answer = (Event, Vec<u8>);

type Waiting = Arc<Mutex<Option<HashMap<u64, Sender<Answer>>>>>;

/// The channel to one agent.
pub(crate) struct Link {
    out: Mutex<UnixStream>,
    next: AtomicU64,
    waiting: Waiting,
}

impl Link {
    /// Takes over the stream; the receiver gets the agent's greeting.
    pub(crate) fn new(stream: UnixStream) -> io::Result<(Self, Receiver<Answer>)> {
        let mut input = stream.try_clone()?;
        let (greeting_out, greeting) = channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::from([(0, greeting_out)]))));
        let table = waiting.clone();
        thread::Builder::new().name("altaz-control".into()).spawn(move || {
            while let Ok(Some((reply, blob))) = read_frame::<_, Reply>(&mut input) {
                dispatch(&table, reply, blob);
            }
            // Nobody will be answered any more: dropping the senders wakes every waiter.
            *table.lock().unwrap_or_else(PoisonError::into_inner) = None;
        })?;
        Ok((Self { out: Mutex::new(stream), next: AtomicU64::new(1), waiting }, greeting))
    }

    /// Sends a request; its answers come out of the receiver, which ends when the lab dies.
    pub(crate) fn send(
        &self,
        body: RequestBody,
        blob: &[u8],
    ) -> Result<(u64, Receiver<Answer>), FrameError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        if let Some(table) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            table.insert(id, sender);
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *out, &Request { id, body }, blob)?;
        Ok((id, receiver))
    }

    /// Ends the channel, and with it the thread that reads it.
    pub(crate) fn close(&self) {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A channel that the other side closed already is as good.
        let _ = out.shutdown(std::net::Shutdown::Both);
    }
}

fn dispatch(waiting: &Waiting, reply: Reply, blob: Vec<u8>) {
    let mut table = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(table) = table.as_mut() else { return };
    let last = reply.event.is_last();
    if let Some(sender) = table.get(&reply.id) {
        // A waiter that gave up has dropped its receiver.
        let _ = sender.send((reply.event, blob));
    }
    if last {
        table.remove(&reply.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ExitStatus;

    #[test]
    fn answers_find_their_request_and_death_wakes_everybody() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let (link, greeting) = Link::new(here).unwrap();
        let (a, answers_a) = link.send(RequestBody::Hello, b"").unwrap();
        let (b, answers_b) = link.send(RequestBody::DeployStop, b"").unwrap();
        let mut reply =
            |id, event, blob: &[u8]| write_frame(&mut there, &Reply { id, event }, blob);
        reply(b, Event::Stdout, b"out").unwrap();
        reply(a, Event::Exit(ExitStatus::Code(3)), b"").unwrap();
        reply(99, Event::Data, b"for nobody").unwrap();
        assert_eq!(answers_b.recv().unwrap(), (Event::Stdout, b"out".to_vec()));
        assert_eq!(answers_a.recv().unwrap().0, Event::Exit(ExitStatus::Code(3)));
        assert!(answers_a.recv().is_err(), "nothing follows a last answer");
        drop(there);
        assert!(answers_b.recv().is_err());
        assert!(greeting.recv().is_err());
    }

    #[test]
    fn a_stream_of_nonsense_ends_the_link() {
        use std::io::Write;
        let (here, mut there) = UnixStream::pair().unwrap();
        let (_link, greeting) = Link::new(here).unwrap();
        there.write_all(b"SeaBIOS (version 1.16)").unwrap();
        assert!(greeting.recv().is_err());
    }
}
