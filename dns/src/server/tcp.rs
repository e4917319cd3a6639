//! TCP: framed queries, answered as they are ready.
//!
//! A connection lives as long as whole queries keep coming; a byte now and then does not
//! keep it open. Clients may send several queries before they read (at most
//! [`PIPELINE_MAX`] are worked on), and answers may overtake each other.
//!
//! Spec: RFC 7766.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use isthmus_runtime::{Accepting, Stop, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::metrics::Count;
use crate::server::ServerSettings;
use crate::server::reply::Transport;
use crate::server::responder::{Responder, Step};
use crate::server::udp::QUERY_BYTES_MAX;

pub(super) async fn serve(
    listener: TcpListener,
    responder: Arc<Responder>,
    settings: ServerSettings,
    mut stop: Stop,
) {
    let guard = stop.guard();
    let mut connections: JoinSet<()> = JoinSet::new();
    let mut clients = Clients::default();
    let mut accepting = Accepting::new(listener, "dns");
    loop {
        let (stream, peer) = tokio::select! {
            // The end first, then room for new connections, then new connections.
            biased;
            () = stop.draining() => break,
            Some(ended) = connections.join_next_with_id() => {
                // A task that panicked gives its place back too.
                clients.forget(ended.map_or_else(|error| error.id(), |(id, ())| id));
                continue;
            }
            accepted = accepting.next() => accepted,
        };
        let client = peer.ip().to_canonical();
        let full = connections.len() >= settings.tcp_connections
            || clients.count(client) >= settings.tcp_connections_per_client;
        if full {
            responder.metrics().add(Count::DroppedOverload);
            continue;
        }
        let connection = Connection {
            stream,
            peer,
            responder: Arc::clone(&responder),
            idle: settings.tcp_idle,
            stop: stop.clone(),
        };
        clients.remember(connections.spawn(connection.run()).id(), client);
    }
    tokio::select! {
        biased;
        () = stop.forced() => {}
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
    drop(guard);
}

/// How many connections each client has; as large as the number of connections.
#[derive(Default)]
struct Clients {
    of_task: HashMap<Id, IpAddr>,
    counts: HashMap<IpAddr, usize>,
}

impl Clients {
    fn remember(&mut self, task: Id, client: IpAddr) {
        self.of_task.insert(task, client);
        *self.counts.entry(client).or_insert(0) += 1;
    }

    fn forget(&mut self, task: Id) {
        let Some(client) = self.of_task.remove(&task) else { return };
        if let Some(count) = self.counts.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&client);
            }
        }
    }

    fn count(&self, client: IpAddr) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    responder: Arc<Responder>,
    idle: Duration,
    stop: Stop,
}

impl Connection {
    async fn run(mut self) {
        let mut received: Vec<u8> = Vec::new();
        let mut forwards: JoinSet<Vec<u8>> = JoinSet::new();
        let mut deadline = Instant::from_std(clock::now()) + self.idle;
        let mut reading = true;
        loop {
            while reading && forwards.len() < PIPELINE_MAX {
                match take_frame(&mut received) {
                    Frame::Whole(packet) => {
                        deadline = Instant::from_std(clock::now()) + self.idle;
                        match self.responder.step(&packet, self.peer, Transport::Tcp) {
                            Step::Silent => {}
                            Step::Send(bytes) => {
                                if !write(&mut self.stream, &bytes, self.idle).await {
                                    return;
                                }
                            }
                            Step::Forward(pending) => {
                                let responder = Arc::clone(&self.responder);
                                forwards.spawn(async move { responder.finish(*pending).await });
                            }
                        }
                    }
                    Frame::Partial => break,
                    Frame::Absurd => reading = false,
                }
            }
            if !reading && forwards.is_empty() {
                return;
            }
            let may_read = reading && forwards.len() < PIPELINE_MAX;
            tokio::select! {
                // Answers first, so that a client that only sends gets no further work.
                biased;
                Some(answer) = forwards.join_next() => {
                    let Ok(bytes) = answer else { return };
                    if !write(&mut self.stream, &bytes, self.idle).await {
                        return;
                    }
                }
                () = self.stop.draining(), if reading => reading = false,
                // `read_buf` keeps what it has read when another arm wins.
                read = self.stream.read_buf(&mut received), if may_read => {
                    reading = matches!(read, Ok(1..));
                }
                () = sleep_until(deadline), if reading => reading = false,
            }
        }
    }
}

enum Frame {
    /// A length that no query has.
    Absurd,
    Partial,
    Whole(Vec<u8>),
}

fn take_frame(received: &mut Vec<u8>) -> Frame {
    let Some(length) = received.first_chunk::<2>() else { return Frame::Partial };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > QUERY_BYTES_MAX {
        return Frame::Absurd;
    }
    let end = 2 + length;
    let Some(packet) = received.get(2..end) else { return Frame::Partial };
    let packet = packet.to_vec();
    received.drain(..end);
    Frame::Whole(packet)
}

/// Writes one framed answer; a client that does not read loses its connection.
async fn write(stream: &mut TcpStream, bytes: &[u8], limit: Duration) -> bool {
    let Ok(length) = u16::try_from(bytes.len()) else { return false };
    let framed = [&length.to_be_bytes(), bytes].concat();
    matches!(timeout(limit, stream.write_all(&framed)).await, Ok(Ok(())))
}

/// Forwarded questions of one connection that are worked on at once.
const PIPELINE_MAX: usize = 16;
