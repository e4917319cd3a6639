//! A relay between a dialler and a gateway whose UDP and TCP can be cut.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Passes UDP and TCP on, or drops them.
pub struct Relay {
    pub address: SocketAddr,
    gates: Arc<Gates>,
    _tasks: JoinSet<()>,
}

struct Gates {
    target: SocketAddr,
    /// UDP packets pass.
    udp: AtomicBool,
    /// New TCP connections are taken.
    tcp: AtomicBool,
    /// Nothing passes, on old connections either; nobody is told.
    dead: AtomicBool,
}

impl Relay {
    pub fn new(target: SocketAddr) -> Self {
        let (udp, tcp) = crate::gateway::sockets();
        tcp.set_nonblocking(true).unwrap();
        let address = udp.local_addr().unwrap();
        let (udp, tcp) = (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap());
        let (open, dead) = (|| AtomicBool::new(true), AtomicBool::new(false));
        let gates = Arc::new(Gates { target, udp: open(), tcp: open(), dead });
        let mut tasks = JoinSet::new();
        tasks.spawn(relay_udp(udp, Arc::clone(&gates)));
        tasks.spawn(relay_tcp(tcp, Arc::clone(&gates)));
        Self { address, gates, _tasks: tasks }
    }

    pub fn set_udp(&self, open: bool) {
        self.gates.udp.store(open, Ordering::SeqCst);
    }

    pub fn set_tcp(&self, open: bool) {
        self.gates.tcp.store(open, Ordering::SeqCst);
    }

    pub fn set_dead(&self, dead: bool) {
        self.gates.dead.store(dead, Ordering::SeqCst);
    }
}

impl Gates {
    fn pass_udp(&self) -> bool {
        self.udp.load(Ordering::SeqCst) && !self.is_dead()
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

async fn relay_udp(front: UdpSocket, gates: Arc<Gates>) {
    let front = Arc::new(front);
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((count, client)) = front.recv_from(&mut buffer).await else { continue };
        if !gates.pass_udp() {
            continue;
        }
        if let Entry::Vacant(place) = backs.entry(client) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            back.connect(gates.target).await.unwrap();
            place.insert(Arc::clone(&back));
            let (front, gates) = (Arc::clone(&front), Arc::clone(&gates));
            tasks.spawn(async move {
                let mut buffer = vec![0; 65536];
                loop {
                    let Ok(count) = back.recv(&mut buffer).await else { continue };
                    if gates.pass_udp() {
                        let _ = front.send_to(&buffer[..count], client).await;
                    }
                }
            });
        }
        let _ = backs[&client].send(&buffer[..count]).await;
    }
}

async fn relay_tcp(listener: TcpListener, gates: Arc<Gates>) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if !gates.tcp.load(Ordering::SeqCst) {
            continue;
        }
        let gates = Arc::clone(&gates);
        tasks.spawn(async move {
            let Ok(server) = TcpStream::connect(gates.target).await else { return };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::join!(
                pump(client_read, server_write, &gates),
                pump(server_read, client_write, &gates),
            );
        });
    }
}

/// Copies until the end; what comes while the relay is dead is lost, and so is the end.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, gates: &Gates) {
    let mut buffer = vec![0; 65536];
    while let Ok(count) = from.read(&mut buffer).await {
        if gates.is_dead() {
            if count == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
