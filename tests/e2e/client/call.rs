//! One request on a connection of its own, over HTTP/1.1 or HTTP/2, plain or TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::wait::eventually;

/// A request.
#[derive(Clone)]
pub(crate) struct Call {
    address: SocketAddr,
    method: Method,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
    is_http2: bool,
    tls: Option<(String, CertificateDer<'static>)>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Call {
    /// A GET to an address; the host is the address unless [`Call::host`] says another.
    pub(crate) fn get(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            method: Method::GET,
            target: path.into(),
            host: None,
            headers: Vec::new(),
            body: Bytes::new(),
            is_http2: false,
            tls: None,
        }
    }

    /// A GET of a URL by way of an HTTP proxy.
    pub(crate) fn through(proxy: SocketAddr, url: &str) -> Self {
        let uri: Uri = url.parse().unwrap();
        let host = uri.authority().expect("the test gives a whole URL").to_string();
        Self::get(proxy, url).host(&host)
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.parse().unwrap();
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        if self.method == Method::GET {
            self.method = Method::POST;
        }
        self
    }

    /// Speaks HTTP/2 from the first byte on (or by ALPN over TLS).
    pub(crate) fn http2(mut self) -> Self {
        self.is_http2 = true;
        self
    }

    /// Speaks TLS with this server name and trusts this certificate alone.
    pub(crate) fn tls(mut self, name: &str, root: &CertificateDer<'static>) -> Self {
        self.tls = Some((name.into(), root.clone()));
        self
    }

    /// Sends it; the whole response must come.
    pub(crate) async fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends it.
    pub(crate) async fn try_send(&self) -> Result<Reply, String> {
        let exchange = async {
            let (response, _connection) = self.begin(Full::new(self.body.clone())).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("body: {error}"))?;
            let trailers = body.trailers().cloned();
            let (status, body) = (parts.status.as_u16(), body.to_bytes());
            Ok(Reply { status, headers: parts.headers, body, trailers })
        };
        let outcome = tokio::time::timeout(REPLY_WITHIN, exchange).await;
        outcome.unwrap_or_else(|_| Err("no whole response in time".into()))
    }

    /// Sends it again and again until this cluster answers.
    pub(crate) async fn is_answered_by(&self, cluster: &str) -> Reply {
        eventually(&format!("{} is answered by {cluster}", self.target), || async {
            let reply = self.try_send().await?;
            match reply.status {
                200 if reply.cluster() == cluster => Ok(reply),
                status => Err(format!("{status} {}", reply.text())),
            }
        })
        .await
    }

    /// Waits until it is answered with this text.
    pub(crate) async fn is_answered_with(&self, text: &str) {
        eventually(&format!("{} is answered with {text:?}", self.target), || async {
            let reply = self.try_send().await?;
            if reply.text() == text { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }

    /// Sends it with any body and gives the response as soon as its head is there, and
    /// the tasks that keep its connection.
    pub(crate) async fn begin<B>(
        &self,
        body: B,
    ) -> Result<(http::Response<Incoming>, JoinSet<()>), String>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = TcpStream::connect(self.address).await.map_err(|e| format!("connect: {e}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => self.exchange(stream, body).await,
            Some((name, root)) => {
                let connector = TlsConnector::from(Arc::new(self.tls_config(root)));
                let name = ServerName::try_from(name.clone()).unwrap();
                let stream = connector.connect(name, stream).await;
                self.exchange(stream.map_err(|error| format!("TLS: {error}"))?, body).await
            }
        }
    }

    async fn exchange<S, B>(
        &self,
        stream: S,
        body: B,
    ) -> Result<(http::Response<Incoming>, JoinSet<()>), String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let mut tasks = JoinSet::new();
        let request = self.request(body);
        let io = TokioIo::new(stream);
        let text =
            |error: hyper::Error| format!("{error}: {:?}", std::error::Error::source(&error));
        let response = if self.is_http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(text)?;
            // What goes wrong on the connection is told to the request on it.
            tasks.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(io).await.map_err(text)?;
            tasks.spawn(async move { drop(connection.await) });
            sender.send_request(request).await
        };
        Ok((response.map_err(text)?, tasks))
    }

    fn request<B>(&self, body: B) -> Request<B> {
        let host = self.host.clone().unwrap_or_else(|| self.address.to_string());
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let target = match self.is_http2 && self.target.starts_with('/') {
            true => format!("{scheme}://{host}{}", self.target),
            false => self.target.clone(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target.parse().unwrap();
        if !self.is_http2 {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&host).unwrap());
        }
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn tls_config(&self, root: &CertificateDer<'static>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocol: &[u8] = if self.is_http2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.status, self.text()))
    }

    /// The service that answered, if the answer is a success.
    pub(crate) fn service(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["service"].as_str().unwrap_or_default().to_owned()
    }

    /// The cluster that answered, if the answer is a success.
    pub(crate) fn cluster(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["cluster"].as_str().unwrap_or_default().to_owned()
    }

    /// A header of the response.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The values of a header as the application saw them.
    pub(crate) fn seen(&self, name: &str) -> Vec<String> {
        let values = self.json()["headers"][name].clone();
        serde_json::from_value(values).unwrap_or_default()
    }
}

const REPLY_WITHIN: std::time::Duration = std::time::Duration::from_secs(25);
