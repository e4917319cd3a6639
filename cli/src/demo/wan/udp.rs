//! Datagrams of one path. Each client address gets a socket of its own towards the other
//! side, as a NAT would give it, which is forgotten when it is silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isthmus_runtime::clock;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Route;
use super::command::Cut;
use super::line::Line;

/// Passes datagrams on for as long as the path exists.
pub(super) async fn relay(front: UdpSocket, route: Route) {
    let front = Arc::new(front);
    let mut clients: BTreeMap<SocketAddr, mpsc::Sender<Bytes>> = BTreeMap::new();
    let mut flows = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error tells of a datagram sent earlier, and nothing of the next to come.
        let Ok((count, client)) = front.recv_from(&mut buffer).await else {
            continue;
        };
        while flows.try_join_next().is_some() {}
        let packet = Bytes::copy_from_slice(&buffer[..count]);
        let known = clients.get(&client).filter(|flow| !flow.is_closed());
        let flow = match known {
            Some(flow) => flow,
            None => {
                clients.retain(|_, flow| !flow.is_closed());
                if clients.len() >= CLIENTS_MAX {
                    continue;
                }
                let (sender, packets) = mpsc::channel(WAITING_MAX);
                let flow = Flow { front: Arc::clone(&front), client, packets };
                flows.spawn(flow.run(route.clone()));
                clients.entry(client).or_insert(sender)
            }
        };
        // A full queue loses the packet, as a router's does.
        let _ = flow.try_send(packet);
    }
}

/// The datagrams of one client.
struct Flow {
    front: Arc<UdpSocket>,
    client: SocketAddr,
    packets: mpsc::Receiver<Bytes>,
}

impl Flow {
    async fn run(mut self, route: Route) {
        let Ok(back) = UdpSocket::bind((unspecified(route.to), 0)).await else {
            return;
        };
        if back.connect(route.to).await.is_err() {
            return;
        }
        let (mut there, mut here) = (Line::new(route.delay), Line::new(route.delay));
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut used = clock::now();
        loop {
            let idle = used + IDLE_MAX;
            let wake = [there.next(), here.next()].into_iter().flatten().min().unwrap_or(idle);
            // The order does not matter: what is due is sent after every turn.
            let arrived = tokio::select! {
                packet = self.packets.recv() => match packet {
                    Some(packet) => Some((&mut there, packet)),
                    None => return,
                },
                received = back.recv(&mut buffer) => received
                    .ok()
                    .map(|count| (&mut here, Bytes::copy_from_slice(&buffer[..count]))),
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            let now = clock::now();
            if let Some((line, packet)) = arrived {
                used = now;
                if *route.cut.borrow() == Cut::Nothing {
                    line.push(now, packet);
                }
            } else if now >= idle {
                return;
            }
            while let Some(packet) = there.pop(now) {
                let _ = back.send(&packet).await;
            }
            while let Some(packet) = here.pop(now) {
                let _ = self.front.send_to(&packet, self.client).await;
            }
        }
    }
}

fn unspecified(to: SocketAddr) -> std::net::IpAddr {
    if to.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}

/// The largest datagram of IP.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Client addresses of one path at a time.
const CLIENTS_MAX: usize = 256;
/// Packets of one client that wait to be put on the line.
const WAITING_MAX: usize = 1024;
/// Silence after which a client's socket is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(60);
