//! `isthmus demo-app`: a sample application. It answers every request, HTTP/1.1 or
//! HTTP/2, with JSON that says who answered and what reached it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use isthmus_runtime::Signals;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Arguments of `isthmus demo-app`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AppArgs {
    /// The name of the service that it is an endpoint of
    #[arg(long)]
    pub(crate) service: String,
    /// The cluster that it runs in
    #[arg(long)]
    pub(crate) cluster: String,
    /// Where it listens
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// End when standard input does, that is, with the process that started it
    #[arg(long)]
    pub(crate) with_parent: bool,
}

/// Runs until it is told to end.
///
/// # Errors
///
/// The address cannot be bound.
pub(crate) fn run(args: &AppArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen at {}", args.listen))?;
        let parent = super::parent_gone(args.with_parent)?;
        // The order does not matter: every arm but the first ends the process.
        tokio::select! {
            () = serve(listener, Arc::new(args.clone())) => {}
            () = super::terminated(&mut signals) => {}
            () = parent => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn serve(listener: TcpListener, args: Arc<AppArgs>) {
    let bound = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&bound).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely; it passes when connections end.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let args = Arc::clone(&args);
        connections.spawn(async move {
            let _permit = permit;
            // Without it, small answers wait for the client's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&args, request.uri().path(), request.headers());
                std::future::ready(Ok::<_, std::convert::Infallible>(answer))
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that breaks off is no concern of a sample.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(args: &AppArgs, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let seen: serde_json::Map<String, serde_json::Value> = HEADERS
        .iter()
        .filter_map(|name| Some((*name, headers.get(*name)?)))
        .map(|(name, value)| {
            (name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned().into())
        })
        .collect();
    let body = serde_json::json!({
        "service": args.service,
        "cluster": args.cluster,
        "hostname": args.listen.to_string(),
        "path": path,
        "headers": seen,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Headers that are shown: who the proxies say is calling, and the trace.
const HEADERS: [&str; 6] =
    ["host", "traceparent", "via", "x-forwarded-client-cert", "x-forwarded-for", "x-request-id"];
const CONNECTIONS_MAX: usize = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::*;

    #[tokio::test]
    async fn the_answer_says_who_answered_and_what_reached_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (service, cluster) = ("cart".to_owned(), "onprem".to_owned());
        let args = AppArgs { service, cluster, listen, with_parent: false };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(args)));
        let client = Client::new(listen);
        for _ in 0..2 {
            let request = Request::get("/x").header("host", "h").header("cookie", "secret");
            let request = request.body(Full::default()).unwrap();
            let response = client.send(request, Duration::from_secs(5)).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((&body["service"], &body["cluster"]), (&"cart".into(), &"onprem".into()));
            assert_eq!(body["headers"], serde_json::json!({"host": "h"}));
        }
    }
}
