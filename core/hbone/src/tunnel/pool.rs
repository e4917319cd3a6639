//! Connections for tunnels, kept and shared by key.
//!
//! A key names both ends: the address, the identity expected there and the identity that
//! we present, because a tunnel must never travel under another workload's certificate.
//!
//! Only one connection of a key is being made at a time. Others who need one wait for it
//! and share it, and they share its failure too, so that a gateway that comes back is
//! not met by a thundering herd and a dead one costs one timeout and not one for each.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isthmus_model::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::mesh::ConnectError;
use crate::tunnel::client::{Availability, Slot, TunnelClient};
use crate::tunnel::error::TunnelError;
use crate::tunnel::head::ConnectHead;
use crate::tunnel::settings::TunnelSettings;
use crate::tunnel::stream::TunnelStream;

/// Which connections may carry a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelKey {
    /// Where the peer listens.
    pub address: SocketAddr,
    /// Who the peer must prove to be.
    pub peer: SpiffeId,
    /// Whose certificate we present.
    pub local: SpiffeId,
}

/// Bounds of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections of the whole pool. Default: 1024.
    pub connections_max: usize,
    /// Connections of one key. Default: 64, which is 6400 tunnels.
    pub connections_per_key_max: usize,
    /// Time to dial and to shake hands. Default: 10 s.
    pub connect_timeout: Duration,
    /// Settings of each connection.
    pub tunnel: TunnelSettings,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_key_max: 64,
            connect_timeout: Duration::from_secs(10),
            tunnel: TunnelSettings::default(),
        }
    }
}

/// Opens tunnels on pooled connections and owns the tasks that drive them.
///
/// Clones share the pool. When the last clone is gone no tunnel can be opened any more,
/// and each connection ends after its last tunnel.
#[derive(Clone)]
pub struct TunnelPool {
    inner: Arc<Inner>,
}

impl TunnelPool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        let (entries, drivers) = (Mutex::default(), TaskTracker::new());
        Self { inner: Arc::new(Inner { entries, drivers, limits }) }
    }

    /// Opens a tunnel on a connection of `key`, which `connect` makes if there is none
    /// with room: dial, then [`MeshConnector::connect`](crate::MeshConnector::connect)
    /// with a configuration that expects `key.peer`.
    ///
    /// A connection that turns out to be gone is replaced, up to
    /// [`OPEN_ATTEMPTS_MAX`] tries; no byte of the tunnel has been sent at that point.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]; [`TunnelError::Connect`] for what `connect` returned.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets its stream; a connection being made is given up, and
    /// the next who waits makes one.
    pub async fn open<C, F, IO>(
        &self,
        key: &TunnelKey,
        connect: C,
        head: &ConnectHead,
    ) -> Result<TunnelStream, TunnelError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<IO, ConnectError>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut last = TunnelError::ConnectionGone { source: None };
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let (client, slot) = self.place(key, &connect).await?;
            match client.open_in(slot, head).await {
                Err(error) if error.is_retryable() => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    /// As [`TunnelPool::open`], but without waiting for the peer's answer; see
    /// [`TunnelClient::open_early`].
    ///
    /// # Errors
    ///
    /// [`TunnelError`], without those that the answer would bring.
    ///
    /// # Cancel safety
    ///
    /// As [`TunnelPool::open`].
    pub async fn open_early<C, F, IO>(
        &self,
        key: &TunnelKey,
        connect: C,
        head: &ConnectHead,
    ) -> Result<TunnelStream, TunnelError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<IO, ConnectError>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, slot) = self.place(key, &connect).await?;
        client.request(slot, head)
    }

    /// Takes no more tunnels, lets open ones end, and resolves when every connection has
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn drain(&self) {
        for entry in std::mem::take(&mut *self.inner.lock()).into_values() {
            entry.clients.iter().for_each(TunnelClient::close);
        }
        self.inner.drivers.close();
        self.inner.drivers.wait().await;
    }

    /// How many connections are kept.
    pub fn len(&self) -> usize {
        self.inner.lock().values().map(|entry| entry.clients.len()).sum()
    }

    /// Whether no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds or makes a connection with room and takes a place on it.
    async fn place<C, F, IO>(
        &self,
        key: &TunnelKey,
        connect: &C,
    ) -> Result<(TunnelClient, Slot), TunnelError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<IO, ConnectError>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (turn, attempts) = match self.inner.find(key)? {
            Found::Place(client, slot) => return Ok((client, slot)),
            Found::Wait { turn, attempts } => (turn, attempts),
        };
        // Nobody closes the semaphore; were it closed, everybody would simply connect.
        let _turn = turn.acquire().await;
        match self.inner.find(key)? {
            Found::Place(client, slot) => return Ok((client, slot)),
            Found::Wait { .. } => {}
        }
        if let Some(error) = self.inner.failure_since(key, attempts) {
            return Err(error);
        }
        self.inner.check_room(key)?;
        let outcome = self.connect(connect).await;
        self.inner.finish_attempt(key, &turn, outcome)
    }

    async fn connect<C, F, IO>(&self, connect: &C) -> Result<TunnelClient, TunnelError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<IO, ConnectError>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = self.inner.limits.connect_timeout;
        let io = tokio::time::timeout(limit, connect())
            .await
            .unwrap_or(Err(ConnectError::Timeout { limit }))
            .map_err(|error| TunnelError::Connect { source: Arc::new(error) })?;
        let settings = self.inner.limits.tunnel.clone();
        let (client, driver) = TunnelClient::handshake(io, settings).await?;
        self.inner.drivers.spawn(driver.run());
        Ok(client)
    }
}

impl fmt::Debug for TunnelPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelPool").field("connections", &self.len()).finish()
    }
}

struct Inner {
    /// Held for look-ups only, never across an await; a connection's own lock may be
    /// taken under it.
    entries: Mutex<BTreeMap<TunnelKey, Entry>>,
    drivers: TaskTracker,
    limits: PoolLimits,
}

struct Entry {
    clients: Vec<TunnelClient>,
    /// One permit: the turn to connect.
    turn: Arc<Semaphore>,
    /// Attempts to connect that have ended.
    attempts: u64,
    /// How the last attempt failed, if it did.
    failure: Option<TunnelError>,
}

enum Found {
    Place(TunnelClient, Slot),
    Wait { turn: Arc<Semaphore>, attempts: u64 },
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TunnelKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &TunnelKey) -> Result<Found, TunnelError> {
        if self.drivers.is_closed() {
            return Err(TunnelError::ConnectionGone { source: None });
        }
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(Entry::new);
        entry.clients.retain(|client| client.availability() != Availability::Gone);
        for client in &entry.clients {
            if let Ok(slot) = client.reserve() {
                return Ok(Found::Place(client.clone(), slot));
            }
        }
        Ok(Found::Wait { turn: Arc::clone(&entry.turn), attempts: entry.attempts })
    }

    /// The failure of an attempt that ended while its caller was waiting.
    fn failure_since(&self, key: &TunnelKey, attempts: u64) -> Option<TunnelError> {
        let entries = self.lock();
        let entry = entries.get(key)?;
        if entry.attempts == attempts { None } else { entry.failure.clone() }
    }

    fn check_room(&self, key: &TunnelKey) -> Result<(), TunnelError> {
        let mut entries = self.lock();
        entries.retain(|other, entry| other == key || entry.is_used());
        let all: usize = entries.values().map(|entry| entry.clients.len()).sum();
        let own = entries.get(key).map_or(0, |entry| entry.clients.len());
        if own >= self.limits.connections_per_key_max {
            return Err(TunnelError::AtCapacity { limit: self.limits.connections_per_key_max });
        }
        if all >= self.limits.connections_max {
            return Err(TunnelError::AtCapacity { limit: self.limits.connections_max });
        }
        Ok(())
    }

    fn finish_attempt(
        &self,
        key: &TunnelKey,
        turn: &Arc<Semaphore>,
        outcome: Result<TunnelClient, TunnelError>,
    ) -> Result<(TunnelClient, Slot), TunnelError> {
        let mut entries = self.lock();
        let entry = entries
            .entry(key.clone())
            .or_insert_with(|| Entry { turn: Arc::clone(turn), ..Entry::new() });
        entry.attempts = entry.attempts.wrapping_add(1);
        entry.failure = outcome.as_ref().err().cloned();
        let client = outcome?;
        if self.drivers.is_closed() {
            client.close();
            return Err(TunnelError::ConnectionGone { source: None });
        }
        let slot = client.reserve()?;
        entry.clients.push(client.clone());
        Ok((client, slot))
    }
}

impl Entry {
    fn new() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { clients: Vec::new(), turn, attempts: 0, failure: None }
    }

    /// Drops dead connections; whether anything is left, or somebody is waiting.
    fn is_used(&mut self) -> bool {
        self.clients.retain(|client| client.availability() != Availability::Gone);
        !self.clients.is_empty() || Arc::strong_count(&self.turn) > 1
    }
}

/// Connections that one tunnel may go through before it is given up.
pub const OPEN_ATTEMPTS_MAX: usize = 3;
