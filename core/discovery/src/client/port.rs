//! One open stream to a controller, over gRPC or in the process.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use isthmus_model::SpiffeId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::{Code, Status};

use super::{GrpcTransport, Transport};
use crate::executor::ConnectionTasks;
use crate::hub::MESSAGES_QUEUED;
use crate::hub::session::SessionError;
use crate::message::{ClientMessage, Delta};
use crate::node::NodeIdentity;
use crate::server::{ALPN, KEEP_ALIVE};
use crate::subscriber::SubscriberError;
use crate::wire::proto::discovery_client::DiscoveryClient as GrpcClient;
use crate::wire::{DeltaAssembler, MESSAGE_BYTES_MAX, WireError, encode};

/// A stream that is not there, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("the controller ended the stream")]
    Ended,
    #[error("HTTP/2 with the controller failed: {source}")]
    Http { source: hyper::Error },
    #[error("the controller at {address} is {found} and must be {wanted}")]
    Identity { address: String, found: String, wanted: SpiffeId },
    #[error("the change is refused: {source}")]
    Refused { source: SubscriberError },
    #[error("the publisher in this process refused the stream: {source}")]
    Session { source: SessionError },
    #[error("the controller answered {code:?}: {message}")]
    Status { code: Code, message: String },
    #[error("no stream to the controller at {address} within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: String },
    #[error("cannot connect to the controller at {address}: {source}")]
    Transport { address: String, source: std::io::Error },
    #[error("the controller's message is not of the protocol: {source}")]
    Wire { source: WireError },
}

/// An open stream.
pub(crate) struct Port {
    incoming: Pin<Box<dyn Stream<Item = Result<Delta, PortError>> + Send>>,
    outgoing: mpsc::Sender<ClientMessage>,
    /// Drives the HTTP/2 connection; ends with the port.
    _connection: JoinSet<()>,
}

impl Port {
    /// Opens a stream.
    pub(crate) async fn open(transport: Transport, node: NodeIdentity) -> Result<Self, PortError> {
        match transport {
            Transport::Grpc(transport) => {
                let address = transport.address.clone();
                match tokio::time::timeout(CONNECT_TIMEOUT, grpc(transport)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(PortError::Timeout { address }),
                }
            }
            Transport::InProcess(publisher) => {
                let session = |source| PortError::Session { source };
                let port = publisher.subscribe_in_process(node).await.map_err(session)?;
                let incoming = ReceiverStream::new(port.incoming)
                    .map(|delta| delta.map_err(|source| PortError::Session { source }));
                let outgoing = port.outgoing;
                Ok(Self { incoming: Box::pin(incoming), outgoing, _connection: JoinSet::new() })
            }
        }
    }

    /// The next delta.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Delta, PortError> {
        self.incoming.next().await.unwrap_or(Err(PortError::Ended))
    }

    /// Sends a message; a controller that does not read any more has ended the stream.
    pub(crate) fn send(&self, message: ClientMessage) -> Result<(), PortError> {
        self.outgoing.try_send(message).map_err(|_| PortError::Ended)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

async fn grpc(transport: GrpcTransport) -> Result<Port, PortError> {
    let tls = connect(transport).await?;
    let http = |source| PortError::Http { source };
    let (sender, connection) = http2::Builder::new(ConnectionTasks::default())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(http)?;
    let mut tasks = JoinSet::new();
    let open = sender.clone();
    tasks.spawn(async move {
        // Without a sender the connection ends, and its tasks with it.
        let _open = open;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the controller ended");
        }
    });
    let mut client = GrpcClient::with_origin(Sender(sender), http::Uri::from_static(ORIGIN))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (outgoing, messages) = mpsc::channel(MESSAGES_QUEUED);
    let response = client
        .stream(Messages { queue: messages, rest: None })
        .await
        .map_err(|error| status(&error))?;
    let mut assembler = DeltaAssembler::default();
    let incoming = response.into_inner().filter_map(move |message| {
        let delta = match message {
            Ok(message) => {
                assembler.handle(message).map_err(|source| PortError::Wire { source }).transpose()
            }
            Err(error) => Some(Err(status(&error))),
        };
        std::future::ready(delta)
    });
    Ok(Port { incoming: Box::pin(incoming), outgoing, _connection: tasks })
}

/// Opens TLS and checks who is there.
async fn connect(transport: GrpcTransport) -> Result<TlsStream<TcpStream>, PortError> {
    let address = || transport.address.clone();
    let failed = |source| PortError::Transport { address: address(), source };
    let mut tls = (*transport.tls).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tcp = TcpStream::connect(transport.address.clone()).await.map_err(failed)?;
    // A refusal only costs latency.
    let _ = tcp.set_nodelay(true);
    let connector = TlsConnector::from(std::sync::Arc::new(tls));
    let stream = connector.connect(transport.server_name.clone(), tcp).await.map_err(failed)?;
    let (_, session) = stream.get_ref();
    let found = session.peer_certificates().and_then(|chain| (transport.identify)(chain));
    let found = found.map(|peer| peer.id);
    if found.as_ref() != Some(&transport.controller) {
        let found = found.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
        let wanted = transport.controller.clone();
        return Err(PortError::Identity { address: address(), found, wanted });
    }
    Ok(stream)
}

fn status(status: &Status) -> PortError {
    PortError::Status { code: status.code(), message: status.message().to_owned() }
}

/// The messages as protobuf, the pieces of one after the other.
///
/// A named type, because the compiler cannot prove a future `Send` that holds the same
/// made of closures (rust-lang/rust#102211).
struct Messages {
    queue: mpsc::Receiver<ClientMessage>,
    rest: Option<Box<dyn Iterator<Item = encode::Wire> + Send>>,
}

impl Stream for Messages {
    type Item = encode::Wire;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(piece) = self.rest.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(piece));
            }
            match std::task::ready!(self.queue.poll_recv(context)) {
                Some(message) => self.rest = Some(encode::client(message)),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// One HTTP/2 connection as what tonic calls.
#[derive(Debug, Clone)]
struct Sender(http2::SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// How long opening a stream may take, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The authority in requests; who is there was decided by the certificate.
const ORIGIN: &str = "https://isthmus-controller";
