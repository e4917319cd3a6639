//! Sample applications: real servers inside the test.

mod http;
mod raw;

pub(crate) use raw::{BROKEN, HANG_UP};

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::eventually_true;
use crate::world::Kind;

/// A running application. Dropping it closes its socket and every connection.
pub(crate) struct Application {
    kind: Kind,
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What the connections of an application have in common.
pub(crate) struct Shared {
    pub(crate) service: String,
    pub(crate) cluster: String,
    /// Whether requests to `/hold` are answered.
    gate: watch::Sender<bool>,
    /// Requests that are held.
    held: watch::Sender<usize>,
    /// Every byte that came, by connection.
    received: Mutex<Vec<Vec<u8>>>,
}

impl Application {
    /// Starts an application.
    pub(crate) async fn start(
        kind: Kind,
        service: &str,
        cluster: &str,
        address: SocketAddr,
    ) -> Self {
        let shared = Arc::new(Shared {
            service: service.to_owned(),
            cluster: cluster.to_owned(),
            gate: watch::Sender::new(false),
            held: watch::Sender::new(0),
            received: Mutex::default(),
        });
        let mut app = Self { kind, address, shared, tasks: JoinSet::new() };
        app.open().await;
        app
    }

    /// Listens again after [`Application::close`].
    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.tasks.spawn(accept(listener, self.kind, Arc::clone(&self.shared)));
    }

    /// Lets every request to `/hold` be answered.
    pub(crate) fn release(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Waits until so many requests are held.
    pub(crate) async fn holds(&self, count: usize) {
        eventually_true(&format!("{} holds {count} requests", self.shared.service), || {
            *self.shared.held.borrow() >= count
        })
        .await;
    }

    /// Every byte that came, by connection.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn hold(&self) {
        self.held.send_modify(|held| *held += 1);
        // The sender lives as long as this does.
        let _ = self.gate.subscribe().wait_for(|open| *open).await;
        self.held.send_modify(|held| *held -= 1);
    }

    fn begin(&self) -> usize {
        let mut all = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Vec::new());
        all.len() - 1
    }

    fn note(&self, connection: usize, bytes: &[u8]) {
        let mut all = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        all[connection].extend_from_slice(bytes);
    }
}

async fn accept(listener: TcpListener, kind: Kind, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely; it passes when connections end.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Without it, small answers wait for a delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, kind, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, kind: Kind, shared: Arc<Shared>) {
    // What a client does to its connection is no concern of a sample.
    let _ = match kind {
        Kind::Http | Kind::Http2 => {
            http::serve(stream, shared).await;
            Ok(())
        }
        Kind::Echo => raw::echo(stream, &shared).await,
        Kind::Recorder => raw::record(stream, &shared).await,
        Kind::Upgrader => raw::upgrade(stream, &shared).await,
    };
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
