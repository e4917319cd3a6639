//! Strict HTTP/1.1 framing in front of hyper.
//!
//! hyper accepts framing that another server reads differently: `Transfer-Encoding:
//! gzip, chunked`, a length beside chunked, equal lengths twice, bare line feeds, spaces
//! after a chunk size, a missing or doubled `Host`. Each of these has been somebody's
//! request smuggling. The guard looks at the bytes of a connection on their way to hyper,
//! follows the message borders itself, and refuses whatever is not canonical.
//!
//! How a refusal reaches the client: from the offending line on, the guard overwrites
//! what it hands to hyper with NUL bytes. NUL is legal nowhere outside a body with a
//! length, so hyper answers `400` and closes; answers to earlier pipelined requests go
//! out first, in order. Nothing that comes later on the connection is looked at.
//!
//! The guard is sans-IO and allocates only when a line spans two reads.
//!
//! Spec: RFC 9112 sections 2 to 7; RFC 9110 section 5.

mod lines;

#[cfg(test)]
mod tests;

pub use lines::Refusal;

use lines::Head;

/// Follows one client connection.
#[derive(Debug)]
pub struct Guard {
    state: State,
    head: Head,
    /// The part of a line that earlier reads brought.
    carry: Vec<u8>,
    refusal: Option<Refusal>,
}

/// Where in the stream of messages the next byte falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a request.
    Start,
    /// In the header lines.
    Headers,
    /// In a body with a length; bytes left.
    Length(u64),
    /// At the line with a chunk's size.
    ChunkSize,
    /// In a chunk; bytes left, with the two of the line end after it.
    ChunkData(u64),
    /// In the trailer lines.
    Trailers,
    /// After a request for another protocol: bytes are not HTTP, or the connection ends.
    Opaque,
    /// After a refusal.
    Refused,
}

/// What the connection is doing, for timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading a body, or past HTTP.
    Body,
    /// A head has begun and is not whole.
    Head,
    /// Between requests.
    Idle,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Guard {
    /// A guard at the start of a connection.
    pub fn new() -> Self {
        Self { state: State::Start, head: Head::default(), carry: Vec::new(), refusal: None }
    }

    /// Looks at the next bytes of the connection and overwrites what must not pass.
    pub fn inspect(&mut self, data: &mut [u8]) {
        let mut at = 0;
        while at < data.len() {
            match self.step(&data[at..]) {
                Ok(used) => at += used,
                Err(refusal) => {
                    self.refusal.get_or_insert(refusal);
                    self.state = State::Refused;
                    data[at..].fill(0);
                    return;
                }
            }
        }
    }

    /// Why the connection was refused.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start if self.carry.is_empty() => Phase::Idle,
            State::Start | State::Headers => Phase::Head,
            State::Length(_)
            | State::ChunkSize
            | State::ChunkData(_)
            | State::Trailers
            | State::Opaque
            | State::Refused => Phase::Body,
        }
    }

    /// Takes one step; returns the bytes it covers, at least one.
    fn step(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        match self.state {
            State::Opaque => Ok(data.len()),
            State::Refused => Err(Refusal::AfterRefusal),
            State::Length(left) => {
                let used = take(left, data.len());
                let left = left - used as u64;
                self.state = if left == 0 { State::Start } else { State::Length(left) };
                Ok(used)
            }
            State::ChunkData(left) => self.chunk_data(left, data),
            State::Start | State::Headers | State::ChunkSize | State::Trailers => self.line(data),
        }
    }

    fn chunk_data(&mut self, left: u64, data: &[u8]) -> Result<usize, Refusal> {
        if left > 2 {
            let used = take(left - 2, data.len());
            self.state = State::ChunkData(left - used as u64);
            return Ok(used);
        }
        let want = if left == 2 { b'\r' } else { b'\n' };
        if data[0] != want {
            return Err(Refusal::ChunkEnd);
        }
        self.state = if left == 1 { State::ChunkSize } else { State::ChunkData(1) };
        Ok(1)
    }

    /// Takes bytes up to the end of a line, and the line when it is whole.
    fn line(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        let Some(end) = memchr::memchr(b'\n', data) else {
            if self.carry.len() + data.len() > LINE_BYTES_MAX {
                return Err(Refusal::LineTooLong);
            }
            self.carry.extend_from_slice(data);
            return Ok(data.len());
        };
        let used = end + 1;
        if self.carry.len() + end > LINE_BYTES_MAX {
            return Err(Refusal::LineTooLong);
        }
        if self.carry.is_empty() {
            self.whole_line(&data[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.carry);
            line.extend_from_slice(&data[..end]);
            let outcome = self.whole_line(&line);
            line.clear();
            self.carry = line;
            outcome?;
        }
        Ok(used)
    }

    /// Takes a line without its line feed.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(Refusal::BareLineFeed);
        };
        self.state = match self.state {
            State::Start => return self.request_line(line),
            State::Headers if line.is_empty() => self.head.finish()?.into_state(),
            State::Headers => {
                self.head.header(line)?;
                State::Headers
            }
            State::ChunkSize => match lines::chunk_size(line, &mut self.head)? {
                0 => State::Trailers,
                size => State::ChunkData(size + 2),
            },
            State::Trailers if line.is_empty() => State::Start,
            State::Trailers => {
                self.head.trailer(line)?;
                State::Trailers
            }
            other @ (State::Length(_) | State::ChunkData(_) | State::Opaque | State::Refused) => {
                other
            }
        };
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.is_empty() {
            // RFC 9112 section 2.2: one empty line before a request line is ignored.
            return if std::mem::replace(&mut self.head.skipped_empty_line, true) {
                Err(Refusal::RequestLine)
            } else {
                Ok(())
            };
        }
        self.head = Head::default();
        self.head.request_line(line)?;
        self.state = State::Headers;
        Ok(())
    }
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Chunked,
    Length(u64),
    Opaque,
}

impl Framing {
    fn into_state(self) -> State {
        match self {
            Self::Chunked => State::ChunkSize,
            Self::Length(0) => State::Start,
            Self::Length(length) => State::Length(length),
            Self::Opaque => State::Opaque,
        }
    }
}

fn take(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// The longest line that is looked at; hyper's own limit on the whole head is lower.
const LINE_BYTES_MAX: usize = 64 * 1024;
