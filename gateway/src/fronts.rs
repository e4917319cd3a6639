//! Opens and closes the sockets of the ingress as Gateways come and go.
//!
//! One task on the control runtime follows the snapshots. For each bound address it binds
//! a socket for every worker and hands them out; when the address goes, the workers stop
//! accepting there and finish what is in flight. A socket that cannot be bound is
//! reported, affects no other, and is tried again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use isthmus_model::snapshot::{FrontKey, FrontTransport};
use isthmus_model::{ListenerFamily, Snapshot};
use isthmus_runtime::{SnapshotCell, SocketError, Stop, bind_tcp, bind_udp, error_chain};
use tokio::sync::{mpsc, watch};

/// What a worker is told.
pub(crate) enum Command {
    /// Stops accepting at an address.
    Close(FrontKey),
    /// Accepts at an address.
    Open {
        /// The address.
        key: FrontKey,
        /// What is spoken there.
        family: ListenerFamily,
        /// The port that clients see.
        port: u16,
        /// This worker's socket.
        socket: FrontSocket,
    },
}

/// A worker's socket at a bound address.
pub(crate) enum FrontSocket {
    /// For connections.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(UdpSocket),
}

/// One bound address, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontStatus {
    /// The address.
    pub address: SocketAddr,
    /// What is spoken there.
    pub family: ListenerFamily,
    /// The listeners served, by name.
    pub listeners: Vec<String>,
    /// Why it is not bound, if it is not.
    pub error: Option<String>,
}

/// Follows the snapshots.
pub(crate) struct Fronts {
    pub(crate) snapshots: SnapshotCell<Snapshot>,
    pub(crate) default_address: IpAddr,
    pub(crate) workers: Vec<mpsc::Sender<Command>>,
    pub(crate) status: watch::Sender<Vec<FrontStatus>>,
    pub(crate) open: BTreeMap<FrontKey, (ListenerFamily, u16)>,
}

impl Fronts {
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let mut changed = self.snapshots.watch();
        changed.mark_changed();
        let mut failed = false;
        loop {
            tokio::select! {
                biased; // After the drain begins nothing is opened.
                () = stop.draining() => return,
                outcome = changed.changed() => if outcome.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            failed = !self.reconcile().await;
        }
    }

    /// Makes the sockets what the snapshot says; returns whether all of them are bound.
    async fn reconcile(&mut self) -> bool {
        let snapshot = self.snapshots.load();
        let wanted = wanted(&snapshot);
        let gone: Vec<FrontKey> = self
            .open
            .iter()
            .filter(|(key, kind)| wanted.get(key) != Some(kind))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.open.remove(&key);
            for worker in &self.workers {
                let _ = worker.send(Command::Close(key)).await;
            }
        }
        let mut errors = BTreeMap::new();
        for (key, kind) in &wanted {
            if !self.open.contains_key(key)
                && let Err(error) = self.open(*key, *kind).await
            {
                errors.insert(*key, error);
            }
        }
        self.report(&snapshot, &errors);
        errors.is_empty()
    }

    async fn open(
        &mut self,
        key: FrontKey,
        (family, port): (ListenerFamily, u16),
    ) -> Result<(), String> {
        let address = self.address(key);
        let sockets = bind(key.transport, address, self.workers.len()).map_err(|error| {
            let reason = error_chain(&error);
            tracing::warn!(%address, %reason, "a listener cannot be bound; trying again");
            reason
        })?;
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let _ = worker.send(Command::Open { key, family, port, socket }).await;
        }
        self.open.insert(key, (family, port));
        tracing::info!(%address, ?family, "listening");
        Ok(())
    }

    fn address(&self, key: FrontKey) -> SocketAddr {
        SocketAddr::new(key.address.unwrap_or(self.default_address), key.port)
    }

    fn report(&self, snapshot: &Snapshot, errors: &BTreeMap<FrontKey, String>) {
        let status = snapshot
            .fronts()
            .map(|(key, front)| FrontStatus {
                address: self.address(*key),
                family: front.family,
                listeners: front.listeners().iter().map(|l| l.name.clone()).collect(),
                error: errors.get(key).cloned(),
            })
            .collect();
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}

fn bind(
    transport: FrontTransport,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<FrontSocket>, SocketError> {
    match transport {
        FrontTransport::Tcp => {
            Ok(bind_tcp(address, count)?.into_iter().map(FrontSocket::Tcp).collect())
        }
        FrontTransport::Udp => {
            Ok(bind_udp(address, count)?.into_iter().map(FrontSocket::Udp).collect())
        }
    }
}

fn wanted(snapshot: &Arc<Snapshot>) -> BTreeMap<FrontKey, (ListenerFamily, u16)> {
    snapshot
        .fronts()
        .filter_map(|(key, front)| {
            let first = front.listeners().first()?;
            Some((*key, (front.family, first.port)))
        })
        .collect()
}

/// Time before a socket that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(2);
