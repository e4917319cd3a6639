//! One UDP session: the client's address, and a socket for the endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use isthmus_model::{Endpoint, Generation};
use isthmus_proxy::Worker;
use isthmus_runtime::{clock, drain::Guard};
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use crate::datagrams::{Chosen, DRAIN_QUIET, IDLE_TIMEOUT, Sessions, connected};

/// One UDP session; its record is made when it is dropped.
pub(crate) struct Session {
    worker: Rc<Worker>,
    client: SocketAddr,
    chosen: Chosen,
    upstream: UdpSocket,
    /// The last snapshot that has the endpoint in use.
    generation: Cell<Generation>,
    started: Instant,
    wall: SystemTime,
    moved: Cell<Instant>,
    received: Cell<u64>,
    sent: Cell<u64>,
    flag: Cell<ResponseFlag>,
    ended: Notify,
    /// The drain waits for the session.
    _in_flight: Guard,
}

impl Session {
    /// Opens the socket towards the endpoint.
    pub(crate) fn open(
        worker: &Rc<Worker>,
        client: SocketAddr,
        chosen: Chosen,
        generation: Generation,
    ) -> io::Result<Self> {
        let upstream = connected(chosen.address)?;
        let now = clock::now();
        let session = Self {
            worker: Rc::clone(worker),
            client,
            chosen,
            upstream,
            generation: Cell::new(generation),
            started: now,
            wall: clock::wall(),
            moved: Cell::new(now),
            received: Cell::new(0),
            sent: Cell::new(0),
            flag: Cell::new(ResponseFlag::None),
            ended: Notify::new(),
            _in_flight: worker.stop().guard(),
        };
        session.with_record(|record| worker.recorder().connection_opened(record));
        Ok(session)
    }

    /// Whether the endpoint is in use in a snapshot; `check` runs once for each snapshot.
    pub(crate) fn is_current(
        &self,
        generation: Generation,
        check: impl FnOnce(&Chosen) -> bool,
    ) -> bool {
        if self.generation.get() == generation {
            return true;
        }
        self.generation.set(generation);
        check(&self.chosen)
    }

    /// Sends a client's datagram to the endpoint.
    pub(crate) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.upstream.send(datagram).await?;
        self.moved.set(clock::now());
        add(&self.received, datagram.len());
        Ok(())
    }

    /// Ends the session.
    pub(crate) fn end(&self) {
        self.ended.notify_one();
    }

    /// Ends the session since its endpoint takes no datagrams.
    pub(crate) fn fail(&self) {
        self.flag.set(ResponseFlag::UpstreamConnectFailure);
        self.end();
    }

    /// Carries replies until the session ends.
    pub(crate) async fn run(
        self: Rc<Self>,
        listener: Rc<UdpSocket>,
        sessions: Sessions,
        scratch: Rc<RefCell<Box<[u8]>>>,
    ) {
        tokio::select! {
            () = self.replies(&listener, &scratch) => {}
            () = self.quiet() => {}
            () = self.ended.notified() => {}
        }
        let mut sessions = sessions.borrow_mut();
        // A newer session of the same client stays.
        if sessions.get(&self.client).is_some_and(|held| Rc::ptr_eq(held, &self)) {
            sessions.remove(&self.client);
        }
    }

    async fn replies(&self, listener: &UdpSocket, scratch: &RefCell<Box<[u8]>>) {
        while self.upstream.readable().await.is_ok() {
            let late = {
                let mut scratch = scratch.borrow_mut();
                let size = match self.upstream.try_recv(&mut scratch) {
                    Ok(size) => size,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => break,
                };
                self.moved.set(clock::now());
                add(&self.sent, size);
                match listener.try_send_to(&scratch[..size], self.client) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Some(scratch[..size].to_vec())
                    }
                    // A reply that cannot be sent is lost, as datagrams may be.
                    Ok(_) | Err(_) => None,
                }
            };
            if let Some(reply) = late {
                let _ = listener.send_to(&reply, self.client).await;
            }
        }
        self.flag.set(ResponseFlag::UpstreamConnectFailure);
    }

    /// Resolves when nothing has moved for too long.
    async fn quiet(&self) {
        let mut stop = self.worker.stop().clone();
        loop {
            let draining = stop.is_draining();
            let limit = if draining { DRAIN_QUIET } else { IDLE_TIMEOUT };
            let due = self.moved.get() + limit;
            if due <= clock::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.draining(), if !draining => {}
            }
        }
    }

    fn with_record(&self, give: impl FnOnce(&AccessRecord<'_>)) {
        let snapshot = self.worker.pin();
        let endpoint: &Endpoint = &self.chosen.endpoint;
        give(&AccessRecord {
            duration: clock::now().saturating_duration_since(self.started),
            client: Some(self.client),
            upstream: Some(self.chosen.address),
            endpoint: endpoint.id.as_str(),
            route: &self.chosen.route,
            service: self.chosen.service.name.as_str(),
            namespace: self.chosen.service.namespace.as_str(),
            source_cluster: snapshot.node.cluster.as_str(),
            destination_cluster: snapshot.node.cluster.as_str(),
            flag: self.flag.get(),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            attempts: 1,
            ..AccessRecord::new(HopRole::Ingress, Protocol::Udp, self.wall)
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.with_record(|record| self.worker.record(record));
    }
}

fn add(counter: &Cell<u64>, size: usize) {
    counter.set(counter.get().saturating_add(u64::try_from(size).unwrap_or(u64::MAX)));
}
