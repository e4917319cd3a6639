//! Verdicts as values, and an executor before an API server that is a script.

mod shared;

use std::sync::{Arc, Mutex};

use kube::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::{BACKOFF_MAX, HINT_MAX};
use super::*;

/// An API server that knows Services, and answers by method and path.
struct Server {
    client: Client,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

/// Of a request and its body.
type Answer = Arc<dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync>;

impl Server {
    async fn start(answer: fn(&str) -> (u16, Value)) -> Self {
        Self::with(Arc::new(move |request, _| answer(request))).await
    }

    async fn with(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (mut tasks, log) = (JoinSet::new(), Arc::clone(&asked));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { client, asked, _tasks: tasks }
    }

    /// What was asked since this was called last, without the kinds that are served.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.retain(|request| request != "GET /api/v1");
        asked
    }
}

/// Answers one request after the other.
async fn serve(mut stream: TcpStream, answer: Answer, log: Arc<Mutex<Vec<String>>>) {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8_lossy(&read[..end + 4]).into_owned();
            }
            match stream.read(&mut chunk).await {
                Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        };
        let length = head
            .to_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let end = head.len() + length.unwrap_or(0);
        while read.len() < end {
            let count = stream.read(&mut chunk).await.unwrap();
            read.extend_from_slice(&chunk[..count]);
        }
        let body = serde_json::from_slice(&read[head.len()..end]).unwrap_or_default();
        read.drain(..end);
        let mut words = head.split([' ', '?']);
        let request = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        log.lock().unwrap().push(request.clone());
        let (code, body) = match request.as_str() {
            "GET /api/v1" => (200, services()),
            request => answer(request, &body),
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
}

fn services() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        {"name": "services", "singularName": "service", "namespaced": true, "kind": "Service",
         "verbs": ["get", "patch"]},
    ]})
}

fn refused(code: u16) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Invalid" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "not so", "reason": reason, "code": code});
    (code, status)
}

fn service(labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"namespace": "shop", "name": "web", "labels": labels}})
}

/// A plan that writes the Service `shop/web`, which is not known to be there.
fn new_service() -> Plan {
    crate::apply::plan(&[service(json!({"a": "b"}))], &[]).unwrap()
}

const GET: &str = "GET /api/v1/namespaces/shop/services/web";
const PATCH: &str = "PATCH /api/v1/namespaces/shop/services/web";

#[tokio::test]
async fn an_object_that_somebody_made_under_our_name_is_read_and_left_alone() {
    let server = Server::start(|_| (200, service(json!({"app": "web"})))).await;
    let report = Executor::new(server.client.clone()).execute(&new_service(), || true).await;
    assert_eq!(server.asked(), [GET]);
    assert_eq!((report.applied, report.failures.len()), (0, 1));
    assert!(report.failures[0].message.contains("is not of isthmus"), "{report:?}");
}

#[tokio::test]
async fn a_new_object_is_looked_for_and_written_and_a_known_one_is_only_written() {
    let server = Server::start(|request| match request {
        GET => refused(404),
        _ => (200, service(json!({}))),
    })
    .await;
    let mut executor = Executor::new(server.client.clone());
    assert_eq!(executor.execute(&new_service(), || true).await.applied, 1);
    assert_eq!(server.asked(), [GET, PATCH]);
    let known = service(json!({MANAGED_LABEL: FIELD_MANAGER}));
    let plan = crate::apply::plan(&[service(json!({"a": "c"}))], &[known]).unwrap();
    assert_eq!(executor.execute(&plan, || true).await.applied, 1);
    assert_eq!(server.asked(), [PATCH]);
}

#[tokio::test]
async fn a_refused_write_is_not_sent_again_with_each_plan() {
    let server = Server::start(|request| refused(if request == GET { 404 } else { 422 })).await;
    let mut executor = Executor::new(server.client.clone());
    let first = executor.execute(&new_service(), || true).await;
    assert_eq!(server.asked(), [GET, PATCH]);
    let second = executor.execute(&new_service(), || true).await;
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(first.failures, second.failures);
    assert_eq!(executor.execute(&new_service(), || false).await.withheld, [], "it still waits");
}

#[tokio::test]
async fn nothing_is_sent_without_the_lead() {
    let server = Server::start(|_| refused(404)).await;
    let report = Executor::new(server.client.clone()).execute(&new_service(), || false).await;
    assert_eq!((report.withheld.len(), server.asked().len()), (1, 0));
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_asked_for_once() {
    let server = Server::start(|_| refused(404)).await;
    let pods: Vec<Value> = ["a", "b", "c"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "x": 1}))
        .into();
    let plan = crate::apply::plan(&pods, &[]).unwrap();
    let report = Executor::new(server.client.clone()).execute(&plan, || true).await;
    assert_eq!((report.failures.len(), report.withheld.len()), (1, 2));
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}

#[test]
fn answers_are_retried_skipped_or_final() {
    let id = ObjectId {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        namespace: "a".to_owned(),
        name: "b".to_owned(),
    };
    let apply = Action::Apply { id: id.clone(), body: Value::Null, is_new: true };
    let status = Action::ApplyStatus { id: id.clone(), body: Value::Null };
    let delete = Action::Delete { id, uid: "u".to_owned() };
    for code in [None, Some(409), Some(410), Some(429), Some(503)] {
        assert_eq!(verdict(code, &apply), Verdict::Retry, "{code:?}");
    }
    for code in [400, 403, 404, 422] {
        assert_eq!(verdict(Some(code), &apply), Verdict::Fail, "{code}");
    }
    assert_eq!(verdict(Some(404), &status), Verdict::Gone);
    assert_eq!(verdict(Some(404), &delete), Verdict::Gone);
    assert_eq!(verdict(Some(409), &delete), Verdict::Gone);
}

#[test]
fn an_object_of_somebody_else_is_not_taken_over() {
    let found = |metadata: Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        }))
        .unwrap()
    };
    let id = |api_version: &str, kind: &str| ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: "a".to_owned(),
        name: "b".to_owned(),
    };
    let service = id("v1", "Service");
    let helm = json!({"labels": {MANAGED_LABEL: "Helm"}});
    let patched = json!({"managedFields": [{"manager": FIELD_MANAGER, "operation": "Update"}]});
    for metadata in [json!({}), helm, patched] {
        let found = found(metadata);
        assert!(!is_ours(&service, &found), "{found:?}");
        assert!(is_ours(&id("multicluster.x-k8s.io/v1beta1", "ServiceImport"), &found));
    }
    let applied = json!({"managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply"}]});
    let hashed = json!({"annotations": {HASH_ANNOTATION: "1"}});
    for metadata in [json!({"labels": {MANAGED_LABEL: FIELD_MANAGER}}), hashed, applied] {
        let found = found(metadata);
        assert!(is_ours(&service, &found), "{found:?}");
    }
}

#[test]
fn waits_grow_to_a_bound_and_follow_the_server_within_another() {
    assert_eq!(backoff(1, None), Duration::from_millis(100));
    assert_eq!(backoff(2, None), Duration::from_millis(200));
    assert_eq!(backoff(60, None), BACKOFF_MAX);
    assert_eq!(backoff(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    assert_eq!(backoff(1, Some(Duration::from_secs(3600))), HINT_MAX);
}
