//! A small HTTP/1.1 client: one kept-alive connection, one request at a time, deadlines on
//! everything, the body counted and thrown away.
//!
//! No proxies, no redirects, no retries: a retry would hide an error and run the service's code
//! twice.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Abort, ErrorKind, RequestError};

const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// How long a read may block before the abort callback is asked again.
const SLICE: Duration = Duration::from_millis(200);

/// A request, serialised once and sent many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
    head_only: bool,
}

impl Request {
    /// Serialises a request. `authority` is the value of the `Host` header.
    ///
    /// # Errors
    /// When a part contains characters that would break the request's framing.
    pub fn new(
        method: &str,
        path: &str,
        authority: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, String> {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if method.is_empty() || !method.chars().all(token) {
            return Err(format!("{method:?} is not an HTTP method; write for example \"GET\""));
        }
        if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "{path:?} is not a request path: it must begin with '/' and hold no spaces or \
                 non-ASCII characters (percent-encode them)"
            ));
        }
        let clean = |v: &str| v.chars().all(|c| !c.is_control());
        if !clean(authority) || !content_type.is_none_or(clean) {
            return Err("host and content type must not hold control characters".into());
        }
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: altaz\r\nAccept: */*\r\n"
        );
        if let Some(content_type) = content_type {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        if !body.is_empty() || !matches!(method, "GET" | "HEAD" | "OPTIONS" | "DELETE" | "TRACE") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Ok(Self { bytes, head_only: method == "HEAD" })
    }
}

/// An answer that arrived completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Length of the body in bytes.
    pub body_len: u64,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

struct Head {
    len: usize,
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

/// One connection to one address, opened when needed.
pub struct Client<'a> {
    addr: SocketAddr,
    connect_timeout: Duration,
    abort: &'a Abort<'a>,
    stream: Option<TcpStream>,
    /// Bytes received and not yet consumed.
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    /// A client for an address; connects at the first request. `abort` is asked while it waits.
    pub fn new(addr: SocketAddr, connect_timeout: Duration, abort: &'a Abort<'a>) -> Self {
        Self { addr, connect_timeout, abort, stream: None, buffer: Vec::new() }
    }

    /// Sends a request and reads its answer completely.
    ///
    /// # Errors
    /// When no complete answer arrived before `deadline`. A status is never an error here.
    pub fn send(&mut self, request: &Request, deadline: Instant) -> Result<Response, RequestError> {
        let result = self.exchange(request, deadline);
        match &result {
            Ok((_, true)) => {}
            _ => self.close(),
        }
        result.map(|(response, _)| response)
    }

    fn close(&mut self) {
        self.stream = None;
        self.buffer.clear();
    }

    fn exchange(
        &mut self,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Response, bool), RequestError> {
        if self.stream.as_ref().is_some_and(is_stale) {
            self.close();
        }
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect(deadline)?,
        };
        let stream = self.stream.insert(stream);
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_write_timeout(Some(left)).map_err(|e| io_error("setting a timeout", &e))?;
        stream.write_all(&request.bytes).map_err(|e| io_error("sending", &e))?;

        let head = loop {
            if let Some(head) = parse_head(&self.buffer, request.head_only)? {
                self.buffer.drain(..head.len);
                if head.status >= 200 {
                    break head;
                }
            } else if self.buffer.len() > MAX_HEAD {
                return Err(bad("the head of the answer is longer than 64 KiB"));
            } else if self.fill(deadline)? == 0 {
                return Err(closed("before the head of the answer was complete"));
            }
        };
        let body_len = match head.framing {
            Framing::Length(n) => self.skip(n, deadline)?,
            Framing::Chunked => self.skip_chunks(deadline)?,
            Framing::UntilClose => self.skip_to_close(deadline)?,
        };
        // Bytes beyond the answer would be taken for the next one.
        let reusable = head.keep_alive && self.buffer.is_empty();
        Ok((Response { status: head.status, body_len }, reusable))
    }

    fn connect(&self, deadline: Instant) -> Result<TcpStream, RequestError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.min(self.connect_timeout).max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&self.addr, timeout)
            .map_err(|e| RequestError::new(ErrorKind::Connect, format!("{}: {e}", self.addr)))?;
        stream.set_nodelay(true).map_err(|e| io_error("setting TCP_NODELAY", &e))?;
        Ok(stream)
    }

    /// Receives something into the buffer; 0 when the peer closed.
    fn fill(&mut self, deadline: Instant) -> Result<usize, RequestError> {
        let Some(stream) = &mut self.stream else {
            return Err(closed("before the answer"));
        };
        let mut chunk = [0_u8; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RequestError::new(ErrorKind::Timeout, "no complete answer in time"));
            }
            if let Some(reason) = (self.abort)() {
                return Err(RequestError::new(ErrorKind::Io, format!("given up: {reason}")));
            }
            let slice = left.min(SLICE).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(slice)).map_err(|e| io_error("setting a timeout", &e))?;
            match stream.read(&mut chunk) {
                Ok(n) => {
                    self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
                    return Ok(n);
                }
                Err(e) if is_again(&e) => {}
                Err(e) => return Err(io_error("receiving", &e)),
            }
        }
    }

    fn skip(&mut self, len: u64, deadline: Instant) -> Result<u64, RequestError> {
        let mut left = len;
        loop {
            let here = (self.buffer.len() as u64).min(left);
            self.buffer.drain(..here as usize);
            left -= here;
            if left == 0 {
                return Ok(len);
            }
            if self.fill(deadline)? == 0 {
                return Err(closed(&format!("{left} bytes before the end of the body")));
            }
        }
    }

    fn skip_to_close(&mut self, deadline: Instant) -> Result<u64, RequestError> {
        let mut len = 0;
        loop {
            len += self.buffer.len() as u64;
            self.buffer.clear();
            if self.fill(deadline)? == 0 {
                return Ok(len);
            }
        }
    }

    fn skip_chunks(&mut self, deadline: Instant) -> Result<u64, RequestError> {
        let mut total = 0_u64;
        loop {
            let (used, size) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.buffer.len() <= MAX_HEAD => {}
                    _ => return Err(bad("a chunk of the body has no valid size")),
                }
                if self.fill(deadline)? == 0 {
                    return Err(closed("between two chunks of the body"));
                }
            };
            self.buffer.drain(..used);
            if size == 0 {
                return self.skip_trailer(deadline).map(|()| total);
            }
            total = total.saturating_add(size);
            self.skip(size, deadline)?;
            self.expect_crlf(deadline)?;
        }
    }

    fn expect_crlf(&mut self, deadline: Instant) -> Result<(), RequestError> {
        while self.buffer.len() < 2 {
            if self.fill(deadline)? == 0 {
                return Err(closed("inside the body"));
            }
        }
        if !self.buffer.starts_with(b"\r\n") {
            return Err(bad("a chunk of the body is longer than its size says"));
        }
        self.buffer.drain(..2);
        Ok(())
    }

    /// Skips trailer fields up to and including the empty line.
    fn skip_trailer(&mut self, deadline: Instant) -> Result<(), RequestError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                self.buffer.drain(..end + 2);
                if end == 0 {
                    return Ok(());
                }
            } else if self.buffer.len() > MAX_HEAD {
                return Err(bad("the trailer of the answer is longer than 64 KiB"));
            } else if self.fill(deadline)? == 0 {
                return Err(closed("before the end of the body"));
            }
        }
    }
}

/// Whether the server has closed a kept-alive connection (or sent bytes nobody asked for).
fn is_stale(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let idle = matches!(stream.peek(&mut [0_u8; 1]), Err(e) if e.kind() == IoKind::WouldBlock);
    !idle || stream.set_nonblocking(false).is_err()
}

fn parse_head(bytes: &[u8], head_only: bool) -> Result<Option<Head>, RequestError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(bad(&e.to_string())),
    };
    let status = parsed.code.ok_or_else(|| bad("no status code"))?;
    let (mut length, mut chunked, mut keep_alive) = (None, false, parsed.version == Some(1));
    for field in parsed.headers.iter() {
        let value = String::from_utf8_lossy(field.value).trim().to_ascii_lowercase();
        if field.name.eq_ignore_ascii_case("content-length") {
            let n: u64 = value
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| value.parse().ok())
                .flatten()
                .ok_or_else(|| bad(&format!("Content-Length {value:?} is not a number")))?;
            if length.is_some_and(|seen| seen != n) {
                return Err(bad("two different Content-Length fields"));
            }
            length = Some(n);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.split(',').next_back().is_some_and(|last| last.trim() == "chunked");
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                match option {
                    "close" => keep_alive = false,
                    "keep-alive" => keep_alive = true,
                    _ => {}
                }
            }
        }
    }
    let framing = if head_only || status < 200 || status == 204 || status == 304 {
        Framing::Length(0)
    } else if chunked {
        Framing::Chunked
    } else {
        length.map_or(Framing::UntilClose, Framing::Length)
    };
    let keep_alive = keep_alive && framing != Framing::UntilClose;
    Ok(Some(Head { len, status, framing, keep_alive }))
}

fn is_again(e: &std::io::Error) -> bool {
    matches!(e.kind(), IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted)
}

fn io_error(what: &str, e: &std::io::Error) -> RequestError {
    let kind = match e.kind() {
        IoKind::WouldBlock | IoKind::TimedOut => ErrorKind::Timeout,
        IoKind::ConnectionReset
        | IoKind::ConnectionAborted
        | IoKind::BrokenPipe
        | IoKind::UnexpectedEof => ErrorKind::Closed,
        _ => ErrorKind::Io,
    };
    RequestError::new(kind, format!("{what}: {e}"))
}

fn closed(when: &str) -> RequestError {
    RequestError::new(ErrorKind::Closed, format!("the service closed the connection {when}"))
}

fn bad(why: &str) -> RequestError {
    RequestError::new(ErrorKind::BadResponse, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Framing {
        parse_head(head.as_bytes(), false).expect("valid").expect("complete").framing
    }

    #[test]
    fn a_request_is_written_as_the_standard_says() {
        let r = Request::new("POST", "/visit", "10.77.0.10:8080", Some("text/plain"), b"hi")
            .expect("valid");
        assert_eq!(
            String::from_utf8_lossy(&r.bytes),
            "POST /visit HTTP/1.1\r\nHost: 10.77.0.10:8080\r\nUser-Agent: altaz\r\n\
             Accept: */*\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
        );
    }

    #[test]
    fn an_empty_post_still_says_its_length() {
        let r = Request::new("POST", "/", "h", None, b"").expect("valid");
        assert!(String::from_utf8_lossy(&r.bytes).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn requests_that_would_break_the_framing_are_refused() {
        assert!(Request::new("GET /", "/", "h", None, b"").is_err());
        assert!(Request::new("GET", "visit", "h", None, b"").is_err());
        assert!(Request::new("GET", "/a b", "h", None, b"").is_err());
        assert!(Request::new("GET", "/", "h\r\nX: y", None, b"").is_err());
    }

    #[test]
    fn the_end_of_a_body_is_found_by_the_headers() {
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Framing::Length(5));
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Framing::Chunked
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n"), Framing::Length(0));
    }

    #[test]
    fn contradicting_or_broken_lengths_are_refused() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
        assert!(parse_head(head.as_bytes(), false).is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", false).is_err());
        assert!(parse_head(b"SSH-2.0-OpenSSH_9.2\r\n", false).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_from_a_server_make_the_head_parser_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)
        ) {
            let _ = parse_head(&bytes, false);
            let _ = httparse::parse_chunk_size(&bytes);
        }
    }
}
