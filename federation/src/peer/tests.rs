//! Sessions and the certificates that opened them: a real client and a real server, and
//! the test in the place of both owners.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isthmus_certs::{
    Authority, AuthorityHandle, AuthorityOptions, BundleSet, IssueFuture, Issued, Issuer, MeshTls,
    RenewSettings, Renewer, SvidCell,
};
use isthmus_model::name::CONTROLLER_ACCOUNT;
use isthmus_model::{ClusterId, SpiffeId, TrustDomain};
use isthmus_runtime::{SnapshotCell, clock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{ALPN, PeerClient};
use super::dialer::{DialFuture, PeerDialer, PeerStream};
use super::event::{EVENTS_QUEUED, Event, Intake, SessionId};
use super::server::serve;
use crate::proto::{Body, Frame, Request};

/// An authority whose certificates begin early, so that little of them is left.
#[derive(Debug, Clone)]
struct Ca {
    authority: AuthorityHandle,
    _folder: Arc<tempfile::TempDir>,
}

#[derive(Debug)]
struct Dated {
    ca: Ca,
    id: SpiffeId,
    left: Duration,
}

impl Issuer for Dated {
    fn issue(&self, csr_der: Vec<u8>) -> IssueFuture<'_> {
        let issued = self.ca.authority.read(|authority| {
            let now = clock::wall() + self.left - authority.svid_lifetime();
            let chain = authority.sign(&csr_der, &self.id, now).unwrap().chain;
            Issued { chain, bundle_jwks: authority.bundle().to_jwks() }
        });
        Box::pin(std::future::ready(Ok(issued)))
    }
}

impl Ca {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = AuthorityOptions::new(folder.path().join("ca"), domain());
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        Self { authority, _folder: Arc::new(folder) }
    }

    /// Puts a certificate into a cell of which so much is left.
    async fn renew(&self, svid: &SvidCell, account: &str, left: Duration) {
        let issuer = Dated { ca: self.clone(), id: id(account), left };
        let settings = RenewSettings::new(1);
        let mut renewer = Renewer::new(Arc::new(issuer), id(account), svid.clone(), settings);
        renewer.renew_once().await.unwrap();
    }

    fn tls(&self, svid: &SvidCell) -> MeshTls {
        let bundles = self.authority.read(|authority| BundleSet::new([&**authority.bundle()]));
        MeshTls::new(svid.clone(), SnapshotCell::new(bundles))
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://mesh.test/ns/isthmus-system/sa/{account}")).unwrap()
}

/// Dials the server and counts.
#[derive(Debug)]
struct Dialer {
    server: std::net::SocketAddr,
    dials: Arc<AtomicUsize>,
}

impl PeerDialer for Dialer {
    fn dial<'a>(&'a self, _: &'a ClusterId) -> DialFuture<'a> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            Ok(Box::new(TcpStream::connect(self.server).await?) as Box<dyn PeerStream>)
        })
    }
}

/// What an owner is told, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    ExportOpened,
    Frame(SessionId),
    ImportClosed(SessionId),
    ImportFailed(String),
    ImportOpened(SessionId),
}

/// Two controllers and both of their owners.
struct World {
    ca: Ca,
    reader: SvidCell,
    events: mpsc::Receiver<Event>,
    /// The channels that owners keep: those of the last session.
    frames: Option<mpsc::Sender<Frame>>,
    requests: Option<mpsc::Sender<Request>>,
    sessions: u64,
    dials: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl World {
    /// The certificates have so much left: of who reads, of who is read.
    async fn start(reader_left: Duration, writer_left: Duration) -> Self {
        let (ca, reader, writer) = (Ca::new(), SvidCell::new(), SvidCell::new());
        ca.renew(&reader, CONTROLLER_ACCOUNT, reader_left).await;
        ca.renew(&writer, "writer", writer_left).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dials, server) = (Arc::default(), listener.local_addr().unwrap());
        let (sender, events) = mpsc::channel(EVENTS_QUEUED);
        let client = PeerClient {
            cluster: ClusterId::new("writer").unwrap(),
            controller: id("writer"),
            tls: ca.tls(&reader),
            dialer: Arc::new(Dialer { server, dials: Arc::clone(&dials) }),
            events: sender.clone(),
        };
        let mut tasks = JoinSet::new();
        let tls = ca.tls(&writer).server_config(&[ALPN]).unwrap();
        tasks.spawn(serve(listener, tls, sender));
        tasks.spawn(client.run());
        let (frames, requests) = (None, None);
        Self { ca, reader, events, frames, requests, sessions: 0, dials, _tasks: tasks }
    }

    /// The next event that matters, after the answer that an owner gives.
    async fn next(&mut self) -> Told {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            match event.expect("an event").expect("a session") {
                Event::ExportClosed { .. } | Event::ExportDrained | Event::ExportRequest { .. } => {
                }
                Event::ExportOpened { peer, frames, reply } => {
                    assert_eq!(peer, id(CONTROLLER_ACCOUNT));
                    self.frames = Some(frames);
                    reply.send(Some(self.session())).unwrap();
                    return Told::ExportOpened;
                }
                Event::ImportClosed { session } => return Told::ImportClosed(session),
                Event::ImportFailed { error, .. } => return Told::ImportFailed(error),
                Event::ImportFrame { session, reply, .. } => {
                    // A session that has just been replaced does not wait for this.
                    let _ = reply.send(Intake::Continue);
                    return Told::Frame(session);
                }
                Event::ImportOpened { requests, reply, .. } => {
                    self.requests = Some(requests);
                    let session = self.session();
                    reply.send(Some(session)).unwrap();
                    return Told::ImportOpened(session);
                }
            }
        }
    }

    fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    /// A session opens, on both sides, and nothing else happens.
    async fn opens(&mut self) -> SessionId {
        assert_eq!(self.next().await, Told::ExportOpened);
        let told = self.next().await;
        let Told::ImportOpened(session) = told else { panic!("{told:?} in place of a session") };
        session
    }

    /// The peer says something, which comes on this session.
    async fn hears(&mut self, session: SessionId) {
        let lease = Duration::from_secs(10);
        let body = Body::Heartbeat { sent: None, sequence: 1, lease };
        let frame = Frame { cluster: ClusterId::new("writer").unwrap(), epoch: 1, body };
        self.frames.as_ref().unwrap().send(frame).await.unwrap();
        assert_eq!(self.next().await, Told::Frame(session));
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_in_a_second_session_and_the_first_is_not_missed() {
    let mut world = World::start(LONG, LONG).await;
    let first = world.opens().await;
    world.hears(first).await;
    world.ca.renew(&world.reader, CONTROLLER_ACCOUNT, LONG).await;
    let second = world.opens().await;
    world.hears(second).await;
    assert_eq!(world.dials.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_session_is_replaced_before_the_certificate_of_the_peer_ends() {
    let mut world = World::start(LONG, SHORT).await;
    let first = world.opens().await;
    world.hears(first).await;
    let second = world.opens().await;
    world.hears(second).await;
}

#[tokio::test]
async fn a_session_ends_with_the_certificate_that_opened_it_and_the_reason_is_told() {
    let mut world = World::start(SHORT, LONG).await;
    let session = world.opens().await;
    world.hears(session).await;
    assert_eq!(world.next().await, Told::ImportClosed(session));
    let Told::ImportFailed(error) = world.next().await else { panic!("no reason") };
    assert!(error.contains("has expired"), "{error}");
    world.ca.renew(&world.reader, CONTROLLER_ACCOUNT, LONG).await;
    let mut told = world.next().await;
    // Attempts with the former certificate, if there was one.
    while matches!(told, Told::ImportFailed(_)) {
        told = world.next().await;
    }
    assert_eq!(told, Told::ExportOpened);
    let Told::ImportOpened(session) = world.next().await else { panic!("no session") };
    world.hears(session).await;
}

#[tokio::test]
async fn a_session_goes_on_while_the_renewed_certificate_opens_no_other() {
    let mut world = World::start(LONG, LONG).await;
    let first = world.opens().await;
    // Of an authority that nobody knows.
    Ca::new().renew(&world.reader, CONTROLLER_ACCOUNT, LONG).await;
    while world.dials.load(Ordering::Relaxed) < 3 {
        world.hears(first).await;
    }
    world.ca.renew(&world.reader, CONTROLLER_ACCOUNT, LONG).await;
    let second = world.opens().await;
    world.hears(second).await;
}

/// More than a session needs to open, and little enough to wait for.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);
