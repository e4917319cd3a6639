//! Frames of the control stream: `type u8, length u16, fields`.
//!
//! A frame of an unknown type is skipped, so a newer peer may send more than we know.
//! [`FrameBuffer`] is the only buffer of the reading side and is bounded by the longest
//! frame.

mod decode;

use isthmus_model::ClusterId;

use crate::proto::version::VersionRange;
use crate::proto::wire::{DecodeError, put_field, reason_text};

pub(crate) use self::decode::decode_reason;

/// One message of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The sender ends the connection and says why.
    Bye {
        /// Why, as a code.
        code: u16,
        /// Why, for the log.
        reason: String,
    },
    /// The sender takes no new streams on this connection.
    Drain {
        /// How long streams in flight may last, in milliseconds; 0 is without limit.
        deadline_ms: u32,
    },
    /// The dialler's first frame.
    Hello(Hello),
    /// The acceptor's answer to [`Frame::Hello`].
    HelloAck {
        /// The version in use from here on.
        version: u16,
        /// The acceptor's cluster.
        cluster: ClusterId,
        /// The acceptor's capabilities.
        capabilities: u64,
    },
    /// Asks for a [`Frame::Pong`].
    Ping {
        /// Number of the ping.
        seq: u64,
        /// The sender's clock in microseconds, echoed.
        sent_at_us: u64,
        /// Bytes of padding, so that the liveness check needs full-size packets.
        padding: u16,
    },
    /// Answers a [`Frame::Ping`].
    Pong {
        /// Number of the ping.
        seq: u64,
        /// The pinger's clock, as it came.
        sent_at_us: u64,
    },
    /// The acceptor does not take the connection.
    Refuse {
        /// Why, as a code.
        code: u16,
        /// Why, for the log.
        reason: String,
    },
    /// The dialler says whether this connection is for new streams.
    Role(Role),
    /// What the sender measures on this connection.
    Stats(Stats),
}

/// The dialler's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the dialler speaks.
    pub versions: VersionRange,
    /// The dialler's cluster; checked against its certificate, never trusted alone.
    pub cluster: ClusterId,
    /// Bits of optional abilities; none is defined in version 1.
    pub capabilities: u64,
}

/// Whether a connection is the one for new streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// New streams go here.
    Active,
    /// Kept warm or on probation; used when nothing else is there.
    Standby,
}

/// What one end measures on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Smoothed round trip in microseconds.
    pub rtt_us: u32,
    /// Lost packets (QUIC) or pings (TCP), in parts per million.
    pub loss_ppm: u32,
    /// Bytes delivered in the last second.
    pub goodput: u64,
    /// Open application streams.
    pub streams: u32,
}

impl Frame {
    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        self.encode_body(&mut body);
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        out.push(self.kind());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&body);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::HelloAck { .. } => HELLO_ACK,
            Self::Refuse { .. } => REFUSE,
            Self::Ping { .. } => PING,
            Self::Pong { .. } => PONG,
            Self::Stats(_) => STATS,
            Self::Drain { .. } => DRAIN,
            Self::Bye { .. } => BYE,
            Self::Role(_) => ROLE,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                put_field(out, 1, &hello.versions.min.to_be_bytes());
                put_field(out, 2, &hello.versions.max.to_be_bytes());
                put_field(out, 3, hello.cluster.as_str().as_bytes());
                put_field(out, 4, &hello.capabilities.to_be_bytes());
            }
            Self::HelloAck { version, cluster, capabilities } => {
                put_field(out, 1, &version.to_be_bytes());
                put_field(out, 2, cluster.as_str().as_bytes());
                put_field(out, 3, &capabilities.to_be_bytes());
            }
            Self::Bye { code, reason } | Self::Refuse { code, reason } => {
                put_field(out, 1, &code.to_be_bytes());
                put_field(out, 2, reason_text(reason).as_bytes());
            }
            Self::Ping { seq, sent_at_us, padding } => {
                put_field(out, 1, &seq.to_be_bytes());
                put_field(out, 2, &sent_at_us.to_be_bytes());
                put_field(out, 3, &vec![0; usize::from(*padding).min(PADDING_BYTES_MAX)]);
            }
            Self::Pong { seq, sent_at_us } => {
                put_field(out, 1, &seq.to_be_bytes());
                put_field(out, 2, &sent_at_us.to_be_bytes());
            }
            Self::Stats(stats) => {
                put_field(out, 1, &stats.rtt_us.to_be_bytes());
                put_field(out, 2, &stats.loss_ppm.to_be_bytes());
                put_field(out, 3, &stats.goodput.to_be_bytes());
                put_field(out, 4, &stats.streams.to_be_bytes());
            }
            Self::Drain { deadline_ms } => put_field(out, 1, &deadline_ms.to_be_bytes()),
            Self::Role(role) => put_field(out, 1, &[role_byte(*role)]),
        }
    }
}

/// Cuts the bytes of a control stream into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Adds bytes as they come from the stream.
    ///
    /// The caller drains [`FrameBuffer::next_frame`] after each push, which keeps the
    /// buffer within one frame plus one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next known frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        loop {
            let rest = self.bytes.get(self.start..).unwrap_or_default();
            let Some((&[kind, high, low], rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length > FRAME_BODY_BYTES_MAX {
                let limit = FRAME_BODY_BYTES_MAX;
                return Err(DecodeError::TooLong { message: "control frame", length, limit });
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let frame = Frame::decode(kind, body)?;
            self.start += FRAME_HEAD_BYTES + length;
            if let Some(frame) = frame {
                return Ok(Some(frame));
            }
        }
    }
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Active => 1,
        Role::Standby => 0,
    }
}

/// Bytes in a frame before its body.
pub const FRAME_HEAD_BYTES: usize = 3;
/// Bytes in a frame's body.
pub const FRAME_BODY_BYTES_MAX: usize = 4096;
/// Bytes of padding in a ping.
pub const PADDING_BYTES_MAX: usize = 2048;

const CLUSTER_BYTES_MAX: usize = 127;

const HELLO: u8 = 1;
const HELLO_ACK: u8 = 2;
const REFUSE: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
const STATS: u8 = 6;
const DRAIN: u8 = 7;
const BYE: u8 = 8;
const ROLE: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire::REASON_BYTES_MAX;

    fn all() -> Vec<Frame> {
        let cluster = ClusterId::new("east").unwrap();
        let versions = VersionRange { min: 1, max: 3 };
        vec![
            Frame::Hello(Hello { versions, cluster: cluster.clone(), capabilities: 5 }),
            Frame::HelloAck { version: 1, cluster, capabilities: 0 },
            Frame::Refuse { code: 3, reason: "no".to_owned() },
            Frame::Ping { seq: 1, sent_at_us: 2, padding: 100 },
            Frame::Pong { seq: 1, sent_at_us: 2 },
            Frame::Stats(Stats { rtt_us: 1, loss_ppm: 2, goodput: 3, streams: 4 }),
            Frame::Drain { deadline_ms: 5000 },
            Frame::Bye { code: 0, reason: String::new() },
            Frame::Role(Role::Active),
            Frame::Role(Role::Standby),
        ]
    }

    #[test]
    fn frames_round_trip_byte_by_byte() {
        let mut bytes = Vec::new();
        all().iter().for_each(|frame| frame.encode(&mut bytes));
        let mut buffer = FrameBuffer::default();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.push(&[byte]);
            while let Some(frame) = buffer.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, all());
    }

    #[test]
    fn unknown_frames_and_fields_are_skipped() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&[200, 0, 2, 9, 9]);
        buffer.push(&[9, 0, 9, 77, 0, 2, 1, 2, 1, 0, 1, 1]);
        assert_eq!(buffer.next_frame(), Ok(Some(Frame::Role(Role::Active))));
        assert_eq!(buffer.next_frame(), Ok(None));
    }

    #[test]
    fn broken_frames_are_refused_with_their_reason() {
        let check = |bytes: &[u8], want: &str| {
            let mut buffer = FrameBuffer::default();
            buffer.push(bytes);
            assert_eq!(buffer.next_frame().unwrap_err().to_string(), want);
        };
        check(&[4, 0xff, 0xff], "control frame has 65535 bytes, at most 4096 are allowed");
        check(&[9, 0, 4, 1, 0, 1, 7], "role field role is not valid: neither 0 nor 1");
        check(&[9, 0, 0], "role has no field role");
        check(&[9, 0, 8, 1, 0, 1, 1, 1, 0, 1, 1], "role field role comes twice");
        check(&[9, 0, 2, 1, 0], "role ends inside field header");
        check(&[9, 0, 3, 1, 0, 9], "role ends inside field value");
        check(&[7, 0, 4, 1, 0, 1, 7], "drain field deadline is not valid: wrong length");
        check(
            &[8, 0, 9, 1, 0, 2, 0, 0, 2, 0, 1, 7],
            "bye field reason is not valid: not printable ascii",
        );
        let hello = [1, 0, 14, 1, 0, 2, 0, 1, 2, 0, 2, 0, 1, 3, 0, 1, b'_'];
        check(&hello, "hello field cluster is not valid: not a cluster id");
    }

    #[test]
    fn a_reason_is_cut_and_cleaned() {
        let mut bytes = Vec::new();
        Frame::Bye { code: 1, reason: "é\n".repeat(400) }.encode(&mut bytes);
        let mut buffer = FrameBuffer::default();
        buffer.push(&bytes);
        let Some(Frame::Bye { reason, .. }) = buffer.next_frame().unwrap() else { panic!() };
        assert_eq!(reason, "?".repeat(REASON_BYTES_MAX));
    }
}
