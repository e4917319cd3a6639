//! Asks the admin endpoint of a running cluster.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::settings::Settings;

/// The admin endpoint of the cluster of a settings file.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    cluster: String,
    file: PathBuf,
}

impl Admin {
    /// Names the endpoint; `file` is the settings file as the user gave it.
    pub(crate) fn new(settings: &Settings, file: &Path) -> Self {
        Self {
            address: settings.telemetry.admin,
            cluster: settings.cluster.to_string(),
            file: file.to_path_buf(),
        }
    }

    /// Reads a path.
    ///
    /// # Errors
    ///
    /// The cluster does not run, or its answer is an error or no JSON.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&Method::GET, path)
    }

    /// Posts to a path.
    ///
    /// # Errors
    ///
    /// As for [`Admin::get`].
    pub(crate) fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(&Method::POST, path)
    }

    fn ask(&self, method: &Method, path: &str) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exchange =
            async { tokio::time::timeout(ANSWER_WITHIN, self.exchange(method, path)).await };
        let (status, body) = runtime
            .block_on(exchange)
            .map_err(|_| anyhow!("{} did not answer within {ANSWER_WITHIN:?}", self.place()))??;
        let value: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{} answered {method} with what is no JSON", self.place()))?;
        if !status.is_success() {
            let reason = value["error"].as_str().map_or_else(|| value.to_string(), str::to_owned);
            let path = path.split('?').next().unwrap_or(path);
            bail!("{method} {path}: {}: {reason}", status.as_u16());
        }
        Ok(value)
    }

    async fn exchange(&self, method: &Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            if error.kind() == ErrorKind::ConnectionRefused {
                let (cluster, file) = (&self.cluster, self.file.display());
                let place = self.place();
                anyhow!(
                    "cluster {cluster} does not run: nothing listens at {place}; start it with `isthmus up -f {file}`"
                )
            } else {
                anyhow::Error::new(error).context(format!("cannot connect to {}", self.place()))
            }
        })?;
        let broken = || format!("{} broke off", self.place());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.with_context(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header("x-isthmus-admin", "1")
            .body(Empty::<Bytes>::new())?;
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!(error))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        // The connection ends with its sender, so both end together.
        let (_, outcome) = tokio::join!(connection, exchange);
        outcome.with_context(broken)
    }

    fn place(&self) -> String {
        format!("the admin endpoint {} (telemetry.admin)", self.address)
    }
}

/// Text as the value of a query parameter.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer; the status of a cluster with tens of thousands of services fits.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use isthmus_telemetry::{AdminError, AdminRoutes, ControlServer, serve_admin};
    use serde_json::json;

    use super::*;

    /// A real admin endpoint on a thread of its own, and the settings that name it.
    pub(crate) struct Rig {
        pub(crate) file: PathBuf,
        pub(crate) settings: Settings,
        runtime: tokio::runtime::Runtime,
        server: Option<ControlServer>,
        _folder: tempfile::TempDir,
    }

    impl Rig {
        pub(crate) fn new(routes: &AdminRoutes) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("cluster.yaml");
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let any = "127.0.0.1:0".parse().unwrap();
            let server = runtime.block_on(async { serve_admin(any, routes).unwrap() });
            let admin = server.local_addr();
            let text = format!(
                "cluster: a\nclusterset: demo\ntelemetry: {{admin: \"{admin}\"}}\nsidecars:\n  \
                - {{name: web, namespace: shop, address: 127.0.0.9, mesh: 127.0.0.9:15008}}\n"
            );
            std::fs::write(&file, text).unwrap();
            let settings = Settings::load(&file).unwrap();
            Self { _folder: folder, file, settings, runtime, server: Some(server) }
        }

        pub(crate) fn stop(&mut self) {
            if let Some(server) = self.server.take() {
                self.runtime.block_on(server.shutdown());
            }
        }
    }

    #[test]
    fn an_answer_an_error_and_silence_are_told_apart() {
        let routes = AdminRoutes::new();
        routes.get("/status", |_| Ok(json!({"cluster": "a"})));
        routes.get("/echo", |query| Ok(json!(query.required("x")?)));
        routes.post("/ca/rotate", |_| {
            Err(AdminError::Unavailable { reason: "already rotating".into() })
        });
        let mut rig = Rig::new(&routes);
        let admin = Admin::new(&rig.settings, &rig.file);
        assert_eq!(admin.get("/status").unwrap(), json!({"cluster": "a"}));
        let odd = "a b&c=d\n%é";
        assert_eq!(admin.get(&format!("/echo?x={}", encode(odd))).unwrap(), json!(odd));
        let error = admin.post("/ca/rotate").unwrap_err().to_string();
        assert_eq!(error, "POST /ca/rotate: 503: not available: already rotating");
        assert!(admin.get("/nothing").unwrap_err().to_string().contains("404"));
        rig.stop();
        let error = admin.get("/status").unwrap_err().to_string();
        assert!(error.starts_with("cluster a does not run: nothing listens at"), "{error}");
    }

    #[test]
    fn what_is_no_admin_endpoint_is_an_error() {
        use std::io::{Read as _, Write as _};
        for (answer, want) in [
            ("SSH-2.0-x\r\n", "broke off"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", "no JSON"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}", "broke off"),
        ] {
            let rig = Rig::new(&AdminRoutes::new());
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut settings = rig.settings.clone();
            settings.telemetry.admin = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let error = Admin::new(&settings, &rig.file).get("/status").unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            server.join().unwrap();
        }
    }
}
