//! One question to one upstream, over UDP and if need be TCP.
//!
//! A forger must guess a random source port, a random id and the case of every letter,
//! from the address that the socket is connected to. Packets that do not match are passed
//! over, and the genuine one is still waited for; after [`MISMATCHES_MAX`] of them, or
//! when only the case differs, the question goes over TCP, where nobody can guess.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::forward::Lookup;
use crate::forward::screen::ScreenError;
use crate::metrics::{Count, Metrics};
use crate::server::EDNS_PAYLOAD_BYTES;
use crate::wire::HEADER_BYTES;

/// Why an upstream gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The question does not fit in a message.
    #[error("the question cannot be encoded")]
    Encode,
    /// The socket failed.
    #[error("the socket to the upstream failed: {kind}")]
    Io { kind: std::io::ErrorKind },
    /// The answer over TCP does not belong to the question.
    #[error("the answer over TCP does not belong to the question")]
    Mismatch,
    /// The answer was not believed.
    #[error("the answer was not believed: {error}")]
    Screened { error: ScreenError },
    /// The upstream took too long.
    #[error("no answer within {after:?}")]
    Timeout { after: Duration },
}

/// Asks one upstream.
pub(super) async fn exchange(
    upstream: SocketAddr,
    lookup: &Lookup,
    limit: Duration,
    metrics: &Metrics,
) -> Result<Message, ExchangeError> {
    let asked = build_query(lookup);
    let packet = asked.to_vec().map_err(|_| ExchangeError::Encode)?;
    let by_udp = timeout(limit, over_udp(upstream, &asked, &packet, metrics));
    match by_udp.await {
        Ok(Ok(Some(message))) => return Ok(message),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => return Err(io(&error)),
        Err(_) => return Err(ExchangeError::Timeout { after: limit }),
    }
    match timeout(limit, over_tcp(upstream, &packet)).await {
        Ok(Ok(answer)) => match judge(&asked, &answer) {
            Judged::Genuine(message) | Judged::Cut(message) => Ok(*message),
            Judged::CaseLost(message) => Ok(*message),
            Judged::Stranger => {
                metrics.add(Count::UpstreamMismatch);
                Err(ExchangeError::Mismatch)
            }
        },
        Ok(Err(error)) => Err(io(&error)),
        Err(_) => Err(ExchangeError::Timeout { after: limit }),
    }
}

fn io(error: &std::io::Error) -> ExchangeError {
    ExchangeError::Io { kind: error.kind() }
}

fn build_query(lookup: &Lookup) -> Message {
    // The codec draws the id and the case of the letters from a cryptographic generator.
    let mut message = Message::query();
    let mut name = lookup.name.clone();
    name.randomize_label_case();
    message.add_query(Query::query(name, lookup.kind));
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = lookup.checking_disabled;
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_PAYLOAD_BYTES).set_dnssec_ok(lookup.dnssec_ok);
    message.set_edns(edns);
    message
}

/// Returns `None` when the question should go over TCP.
async fn over_udp(
    upstream: SocketAddr,
    asked: &Message,
    packet: &[u8],
    metrics: &Metrics,
) -> std::io::Result<Option<Message>> {
    let local: SocketAddr = if upstream.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // The kernel picks a random port, and lets in only what the upstream sends.
    let socket = UdpSocket::bind(local).await?;
    socket.connect(upstream).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    for _ in 0..MISMATCHES_MAX {
        let length = socket.recv(&mut buffer).await?;
        match judge(asked, buffer.get(..length).unwrap_or_default()) {
            Judged::Genuine(message) => return Ok(Some(*message)),
            Judged::Cut(_) | Judged::CaseLost(_) => return Ok(None),
            Judged::Stranger => metrics.add(Count::UpstreamMismatch),
        }
    }
    Ok(None)
}

async fn over_tcp(upstream: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes(), packet].concat();
    stream.write_all(&framed).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Whether a packet answers the question.
#[derive(Debug)]
enum Judged {
    /// All but the case of the letters is right.
    CaseLost(Box<Message>),
    /// It does, but the answer did not fit.
    Cut(Box<Message>),
    Genuine(Box<Message>),
    Stranger,
}

fn judge(asked: &Message, packet: &[u8]) -> Judged {
    // The id and the number of questions are looked at first, so that a flood of guesses
    // costs no decoding.
    let Some([id0, id1, _, _, q0, q1, ..]) = packet.first_chunk::<HEADER_BYTES>() else {
        return Judged::Stranger;
    };
    if u16::from_be_bytes([*id0, *id1]) != asked.metadata.id || [*q0, *q1] != [0, 1] {
        return Judged::Stranger;
    }
    let Ok(message) = Message::from_vec(packet) else { return Judged::Stranger };
    let (Some(ours), [theirs]) = (asked.queries.first(), message.queries.as_slice()) else {
        return Judged::Stranger;
    };
    let same = message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && ours.query_type == theirs.query_type
        && ours.query_class == theirs.query_class
        && ours.name == theirs.name;
    if !same {
        Judged::Stranger
    } else if !ours.name.eq_case(&theirs.name) {
        Judged::CaseLost(Box::new(message))
    } else if message.metadata.truncation {
        Judged::Cut(Box::new(message))
    } else {
        Judged::Genuine(Box::new(message))
    }
}

/// Datagrams with a wrong id or question before the question goes over TCP.
const MISMATCHES_MAX: usize = 32;
/// A little more than upstreams are told that they may send.
const RECEIVE_BYTES: usize = 4096;
