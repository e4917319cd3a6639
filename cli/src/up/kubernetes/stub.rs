//! An API server for tests: it keeps Secrets and pods in memory, and fails on demand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use isthmus_kubernetes::mark::{LEADER, LEADER_LABEL};
use isthmus_kubernetes::{Access, Client, connect};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A server on loopback; it ends when it is dropped.
pub(crate) struct Stub {
    pub(crate) client: Client,
    store: Arc<Mutex<Store>>,
    /// Counts answers.
    answers: watch::Sender<u64>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Store {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// What every write is answered with, if it is not carried out.
    refusal: Option<u16>,
    refused: u32,
}

impl Stub {
    /// A server with some pods of isthmus-system.
    pub(crate) async fn with_pods(folder: &Path, pods: &[(&str, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        for (name, labels) in pods {
            let path = format!("/api/v1/namespaces/isthmus-system/pods/{name}");
            let pod = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": { "name": name, "labels": labels },
            });
            store.lock().unwrap().objects.insert(path, pod);
        }
        let (shared, mut task) = (Arc::clone(&store), JoinSet::new());
        let answers = watch::Sender::new(0);
        let answered = answers.clone();
        task.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, Arc::clone(&shared), answered.clone()));
            }
        });
        let path = folder.join("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "" } }],
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        let access = Access::Kubeconfig { path: Some(path), context: None };
        let client = connect(&access).await.unwrap().client;
        Self { client, store, answers, _task: task }
    }

    /// Answers every write with a status from now on, or carries it out again.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        self.store.lock().unwrap().refusal = status;
    }

    /// An object of isthmus-system, as in `secrets/isthmus-authority`.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        let suffix = format!("/namespaces/isthmus-system/{path}");
        let store = self.store.lock().unwrap();
        let found = store.objects.iter().find(|(path, _)| path.ends_with(&suffix));
        found.map(|(_, object)| object.clone())
    }

    /// Waits until a pod has the label of a leader, or has it no more.
    pub(crate) async fn is_marked(&self, pod: &str, wanted: bool) {
        let mut answers = self.answers.subscribe();
        let path = format!("pods/{pod}");
        let label = || self.object(&path).unwrap()["metadata"]["labels"][LEADER_LABEL].clone();
        answers.wait_for(|_| (label() == LEADER) == wanted).await.unwrap();
    }

    /// Waits until so many writes were refused.
    pub(crate) async fn has_refused(&self, count: u32) {
        let mut answers = self.answers.subscribe();
        answers.wait_for(|_| self.store.lock().unwrap().refused >= count).await.unwrap();
    }
}

async fn serve(stream: TcpStream, store: Arc<Mutex<Store>>, answers: watch::Sender<u64>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let Some(request) = head.first() else { return };
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer) = store.lock().unwrap().answer(method, path, &body);
    answers.send_modify(|count| *count += 1);
    let text = answer.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

impl Store {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        if path == "/version" {
            let names = ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate"];
            let mut version = json!({ "goVersion": "", "compiler": "", "platform": "" });
            for name in names {
                version[name] = json!("1");
            }
            return (200, version);
        }
        if method == "get" {
            return match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if path.ends_with("/pods") => (200, self.leaders()),
                None => failure(404),
            };
        }
        if let Some(status) = self.refusal {
            self.refused += 1;
            return failure(status);
        }
        match method {
            "post" => {
                let name = body["metadata"]["name"].as_str().unwrap();
                self.write(format!("{path}/{name}"), body.clone())
            }
            "put" => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                match self.objects.get(path) {
                    None => failure(404),
                    Some(found) if version(found) != version(body) => failure(409),
                    Some(_) => self.write(path.to_owned(), body.clone()),
                }
            }
            "patch" => match self.objects.get(path).cloned() {
                None => failure(404),
                Some(mut found) => {
                    let labels = found["metadata"]["labels"].as_object_mut().unwrap();
                    for (key, value) in body["metadata"]["labels"].as_object().unwrap() {
                        labels.insert(key.clone(), value.clone());
                    }
                    labels.retain(|_, value| !value.is_null());
                    self.write(path.to_owned(), found)
                }
            },
            method => panic!("{method} {path}"),
        }
    }

    fn write(&mut self, path: String, mut object: Value) -> (u16, Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        (200, object)
    }

    /// The pods that the label selector of a leader finds.
    fn leaders(&self) -> Value {
        let pods = self.objects.iter().filter(|(path, _)| path.contains("/pods/"));
        let is_leader = |pod: &&Value| pod["metadata"]["labels"][LEADER_LABEL] == LEADER;
        let items: Vec<&Value> = pods.map(|(_, pod)| pod).filter(is_leader).collect();
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {}, "items": items,
        })
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
        "reason": reason, "message": "as the test wants it", "metadata": {},
    });
    (code, status)
}
