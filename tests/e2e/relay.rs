//! The network between two addresses: carries TCP and UDP and remembers every byte.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A relay. Dropping it cuts every connection.
pub(crate) struct Relay {
    address: SocketAddr,
    seen: Seen,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Begins to carry what comes to `listen` on to `to`.
    pub(crate) async fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let tcp = TcpListener::bind(listen).await.unwrap();
        let udp = UdpSocket::bind(listen).await.unwrap();
        let seen = Seen::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_tcp(tcp, to, seen.clone()));
        tasks.spawn(carry_udp(udp, to, seen.clone()));
        Self { address: listen, seen, _tasks: tasks }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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

async fn carry_udp(socket: UdpSocket, to: SocketAddr, seen: Seen) {
    let socket = Arc::new(socket);
    let mut onward: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // An unreachable port is reported here and concerns one packet only.
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else { continue };
        seen.lock().extend_from_slice(&buffer[..count]);
        if !onward.contains_key(&from) {
            let new = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            new.connect(to).await.unwrap();
            let new = Arc::new(new);
            onward.insert(from, Arc::clone(&new));
            answers.spawn(answer(new, Arc::clone(&socket), from, seen.clone()));
        }
        // Packets may be lost.
        let _ = onward[&from].send(&buffer[..count]).await;
    }
}

async fn answer(from: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, seen: Seen) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(count) = from.recv(&mut buffer).await else {
            // Nobody listens at present.
            tokio::task::yield_now().await;
            continue;
        };
        seen.lock().extend_from_slice(&buffer[..count]);
        let _ = socket.send_to(&buffer[..count], to).await;
    }
}

const BUFFER_BYTES: usize = 64 * 1024;
