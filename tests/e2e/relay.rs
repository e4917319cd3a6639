//! The network between two addresses: carries TCP and UDP and remembers every byte.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A relay. Dropping it cuts every connection.
pub(crate) struct Relay {
    address: SocketAddr,
    seen: Seen,
    udp_is_cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Begins to carry what comes to `listen` on to `to`.
    pub(crate) async fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let tcp = TcpListener::bind(listen).await.unwrap();
        let udp = UdpSocket::bind(listen).await.unwrap();
        let seen = Seen::default();
        let udp_is_cut = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_tcp(tcp, to, seen.clone()));
        tasks.spawn(carry_udp(udp, to, seen.clone(), udp_is_cut.subscribe()));
        Self { address: listen, seen, udp_is_cut, _tasks: tasks }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every UDP packet from now on, or no more.
    pub(crate) fn cut_udp(&self, cut: bool) {
        self.udp_is_cut.send_replace(cut);
    }

    /// How many bytes it has carried.
    pub(crate) fn carried(&self) -> usize {
        self.seen.lock().len()
    }

    /// Whether a text was on the wire as it is.
    pub(crate) fn saw(&self, text: &str) -> bool {
        memchr::memmem::find(&self.seen.lock(), text.as_bytes()).is_some()
    }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry_tcp(listener: TcpListener, to: SocketAddr, seen: Seen) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let seen = seen.clone();
        connections.spawn(async move {
            let Ok(onward) = TcpStream::connect(to).await else { return };
            let _ = (from.set_nodelay(true), onward.set_nodelay(true));
            let ((a, b), (c, d)) = (from.into_split(), onward.into_split());
            tokio::join!(copy(a, d, &seen), copy(c, b, &seen));
        });
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, seen: &Seen) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        seen.lock().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

async fn carry_udp(socket: UdpSocket, to: SocketAddr, seen: Seen, is_cut: watch::Receiver<bool>) {
    let socket = Arc::new(socket);
    let mut onward: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // An unreachable port is reported here and concerns one packet only.
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else { continue };
        if *is_cut.borrow() {
            continue;
        }
        seen.lock().extend_from_slice(&buffer[..count]);
        if let Entry::Vacant(entry) = onward.entry(from) {
            let new = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            new.connect(to).await.unwrap();
            let new = entry.insert(Arc::new(new));
            let back = Back { from: Arc::clone(new), socket: Arc::clone(&socket), to: from };
            answers.spawn(answer(back, seen.clone(), is_cut.clone()));
        }
        // Packets may be lost.
        let _ = onward[&from].send(&buffer[..count]).await;
    }
}

/// The way back to one client.
struct Back {
    from: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
}

async fn answer(back: Back, seen: Seen, is_cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(count) = back.from.recv(&mut buffer).await else {
            // Nobody listens at present.
            tokio::task::yield_now().await;
            continue;
        };
        if *is_cut.borrow() {
            continue;
        }
        seen.lock().extend_from_slice(&buffer[..count]);
        let _ = back.socket.send_to(&buffer[..count], back.to).await;
    }
}

const BUFFER_BYTES: usize = 64 * 1024;
