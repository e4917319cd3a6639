//! Sends the requests of the scenario at a steady rate and counts what comes of them.
//!
//! The rate does not follow the answers: while requests hang, further ones are sent, as
//! users would, up to a bound, beyond which each is counted as failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use isthmus_runtime::clock;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::admin::Statuses;
use super::client::{Client, ClientError, Response};
use super::scenario::Flow;
use super::tally::{Board, Outcome};

/// The board as the generator, the story and the view share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedBoard(Arc<Mutex<Board>>);

impl SharedBoard {
    /// The board; held for a count or a read, never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running generator; ends when dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    _flows: JoinSet<()>,
}

impl Traffic {
    /// Begins to send when every cluster has answered once.
    pub(crate) fn start(
        flows: &[Flow],
        board: &SharedBoard,
        statuses: &watch::Receiver<Statuses>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for flow in flows {
            let (flow, board, mut statuses) = (flow.clone(), board.clone(), statuses.clone());
            tasks.spawn(async move {
                let all = |statuses: &Statuses| statuses.values().all(Option::is_some);
                // An error means that the demo ends.
                if statuses.wait_for(all).await.is_ok() {
                    drop(statuses);
                    send(flow, board).await;
                }
            });
        }
        Self { _flows: tasks }
    }
}

async fn send(flow: Flow, board: SharedBoard) {
    let client = Arc::new(Client::new(flow.connect));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / flow.per_second.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut requests = JoinSet::new();
    loop {
        // No arm needs to go first: both are cheap and neither starves the other.
        tokio::select! {
            _ = ticks.tick() => {
                let ticket = board.lock().start(&flow.name, clock::now());
                if requests.len() >= IN_FLIGHT_MAX {
                    let outcome = Outcome::Failed("too many in flight".to_owned());
                    board.lock().finish(ticket, clock::now(), outcome);
                    continue;
                }
                let (client, board) = (Arc::clone(&client), board.clone());
                let request = request(&flow.url, flow.proxy);
                requests.spawn(async move {
                    let outcome = match request {
                        Ok(request) => outcome(client.send(request, TIMEOUT).await),
                        Err(error) => Outcome::Failed(error.to_string()),
                    };
                    board.lock().finish(ticket, clock::now(), outcome);
                });
            }
            Some(_) = requests.join_next() => {}
        }
    }
}

/// A GET in the form for a server, or in the absolute form for a proxy.
fn request(url: &Uri, proxy: bool) -> Result<Request<Full<Bytes>>, http::Error> {
    let host = url.authority().map(ToString::to_string).unwrap_or_default();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = if proxy { Request::get(url) } else { Request::get(path) };
    request.header(header::HOST, host).body(Full::default())
}

/// Who served is what the application itself says in its answer.
fn outcome(response: Result<Response, ClientError>) -> Outcome {
    match response {
        Err(error) => Outcome::Failed(error.to_string()),
        Ok(response) if !response.status.is_success() => {
            Outcome::Failed(response.status.as_str().to_owned())
        }
        Ok(response) => match serde_json::from_slice::<Answer>(&response.body) {
            Ok(answer) => Outcome::Served(answer.cluster),
            Err(_) => Outcome::Failed("not the application's answer".to_owned()),
        },
    }
}

#[derive(Deserialize)]
struct Answer {
    cluster: String,
}

/// Requests of one route that wait for their answer.
const IN_FLIGHT_MAX: usize = 512;
/// Patience of a user.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_gets_the_absolute_form() {
        let url: Uri = "http://cart.shop:8080/x?y".parse().unwrap();
        let direct = request(&url, false).unwrap();
        assert_eq!(direct.uri(), "/x?y");
        assert_eq!(direct.headers()["host"], "cart.shop:8080");
        assert_eq!(request(&url, true).unwrap().uri(), &url);
    }

    #[test]
    fn who_served_is_what_the_application_says() {
        let answer = |status: u16, body: &'static str| {
            let status = http::StatusCode::from_u16(status).unwrap();
            outcome(Ok(Response { status, body: Bytes::from_static(body.as_bytes()) }))
        };
        assert_eq!(answer(200, r#"{"cluster":"a"}"#), Outcome::Served("a".to_owned()));
        assert_eq!(answer(503, r#"{"cluster":"a"}"#), Outcome::Failed("503".to_owned()));
        assert!(matches!(answer(200, "<html>"), Outcome::Failed(_)));
        let timeout = outcome(Err(ClientError::Timeout));
        assert_eq!(timeout, Outcome::Failed("timeout".to_owned()));
    }
}
