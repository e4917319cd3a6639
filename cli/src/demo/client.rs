//! A small HTTP/1.1 client for one server or proxy, with a bounded set of kept
//! connections. It is the demo's view from outside: it retries nothing that may have
//! reached the server.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A client of one address.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    connections: Mutex<JoinSet<()>>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum ClientError {
    /// The body is larger than allowed or broke off.
    #[error("broken body")]
    Body,
    /// The connection was closed before the response.
    #[error("connection closed")]
    Closed,
    /// The connection was not established.
    #[error("connection refused")]
    Connect,
    /// No response in time.
    #[error("timeout")]
    Timeout,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default(), connections: Mutex::default() }
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    ///
    /// [`ClientError`] says at which point it failed.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response, ClientError> {
        let exchange = self.exchange(request);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(ClientError::Timeout))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, ClientError> {
        let mut request = request;
        loop {
            let (mut sender, kept) = match self.kept() {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let error = match sender.try_send_request(request).await {
                Ok(response) => return self.read(response, sender).await,
                Err(error) => error,
            };
            // A kept connection may have been closed meanwhile; what was not sent at all
            // may be sent again.
            match error {
                mut error if kept => {
                    request = error.take_message().ok_or(ClientError::Closed)?;
                }
                _ => return Err(ClientError::Closed),
            }
        }
    }

    async fn read(
        &self,
        response: http::Response<hyper::body::Incoming>,
        sender: SendRequest<Full<Bytes>>,
    ) -> Result<Response, ClientError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect();
        let body = body.await.map_err(|_| ClientError::Body)?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok(Response { status, body })
    }

    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = TcpStream::connect(self.address).await.map_err(|_| ClientError::Connect)?;
        stream.set_nodelay(true).map_err(|_| ClientError::Connect)?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|_| ClientError::Connect)?;
        {
            let mut tasks = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                // What goes wrong on the connection is told to the request on it.
                let _ = connection.await;
            });
        }
        sender.ready().await.map_err(|_| ClientError::Closed)?;
        Ok(sender)
    }
}

/// Connections kept for further requests.
const IDLE_MAX: usize = 64;
/// Largest body that is read.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
