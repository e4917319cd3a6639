//! `isthmus explain`: runs the routers on the process's own snapshots.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use isthmus_discovery::OnDemand;
use isthmus_gateway::IngressRouter;
use isthmus_model::{Label, RequestHead, Snapshot, Step, Trail};
use isthmus_proxy::canonical::{self, Rules};
use isthmus_proxy::{Route, RouteInput, Router};
use isthmus_runtime::SnapshotCell;
use isthmus_sidecar::OutboundRouter;
use isthmus_telemetry::{AdminError, Query};
use serde_json::{Value, json};

/// Who can be asked: the ingress, or a sidecar by `<namespace>/<name>`.
#[derive(Debug, Clone)]
pub(crate) struct Viewpoint {
    pub(crate) name: String,
    pub(crate) kind: ViewpointKind,
    pub(crate) snapshots: SnapshotCell<Snapshot>,
}

/// Which router a viewpoint has.
#[derive(Debug, Clone)]
pub(crate) enum ViewpointKind {
    Ingress,
    Sidecar { namespace: Label, on_demand: OnDemand },
}

/// Answers one question.
pub(crate) fn answer(viewpoints: &[Viewpoint], query: &Query) -> Result<Value, AdminError> {
    let from = query.value("from").unwrap_or("ingress");
    let viewpoint = viewpoints.iter().find(|v| v.name == from).ok_or_else(|| {
        let known: Vec<&str> = viewpoints.iter().map(|v| v.name.as_str()).collect();
        AdminError::NotFound { what: format!("workload {from}; known are {}", known.join(", ")) }
    })?;
    let bad = |reason: String| AdminError::BadRequest { reason };
    let url = query.required("url")?;
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = url.parse().map_err(|error| bad(format!("url: {error}")))?;
    let authority = uri.authority().ok_or_else(|| bad("url: no host".into()))?;
    let authority = canonical::parse_authority(authority.as_str())
        .map_err(|error| bad(format!("url: {error}")))?;
    let path = canonical::normalise(uri.path(), Rules::default())
        .map_err(|error| bad(format!("url: {error}")))?;
    let method: Method = query
        .value("method")
        .unwrap_or("GET")
        .parse()
        .map_err(|_| bad("method: not a method".into()))?;
    let headers = headers(query.value("header").unwrap_or("")).map_err(bad)?;
    let input = RouteInput {
        head: RequestHead {
            method: &method,
            host: &authority.host,
            path: &path,
            query: uri.query(),
            headers: &headers,
        },
        port: authority.port,
        server_name: None,
        mesh_port: None,
        random: 0,
    };
    if let ViewpointKind::Sidecar { namespace, on_demand } = &viewpoint.kind {
        fetch(viewpoint, namespace, on_demand, &authority.host);
    }
    let snapshot = viewpoint.snapshots.load();
    let mut trail = Trail::on();
    trail.note(|| Step {
        stage: "snapshot",
        object: format!("{} of cluster {}", viewpoint.name, snapshot.node.cluster),
        outcome: format!("generation {}", snapshot.generation),
    });
    let scheme_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let result = match &viewpoint.kind {
        ViewpointKind::Sidecar { namespace, .. } => {
            let router = OutboundRouter::new(namespace.clone(), 0);
            outcome(&router.route(&snapshot, &input, &mut trail))
        }
        ViewpointKind::Ingress => {
            let port = authority.port.unwrap_or(scheme_port);
            ingress(&snapshot, port, &input, &mut trail)
        }
    };
    Ok(json!({ "steps": trail.into_steps(), "result": result }))
}

/// Fetches a service that the workload has not called yet, as its first request would.
fn fetch(viewpoint: &Viewpoint, namespace: &Label, on_demand: &OnDemand, host: &str) {
    let Some(service) = OutboundRouter::new(namespace.clone(), 0).service_of(host) else { return };
    if viewpoint.snapshots.load().service(&service).is_none() {
        // The admin endpoint's handlers are synchronous; the control runtime has another
        // thread, and the wait is bounded by discovery's own limit.
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(on_demand.want(&service));
        });
    }
}

fn ingress(
    snapshot: &Arc<Snapshot>,
    port: u16,
    input: &RouteInput<'_>,
    trail: &mut Trail,
) -> Value {
    let front = snapshot.fronts().find(|(key, front)| {
        key.port == port || front.listeners().iter().any(|listener| listener.port == port)
    });
    match front {
        None => json!({ "status": 0, "detail": format!("no Gateway listens on port {port}") }),
        Some((key, _)) => {
            let router = IngressRouter::new(*key, port);
            outcome(&router.route(snapshot, input, trail))
        }
    }
}

fn outcome(route: &Route<'_>) -> Value {
    match route {
        Route::Refuse { status, flag, detail, .. } => {
            json!({ "status": status.as_u16(), "flag": flag.name(), "detail": detail })
        }
        Route::Redirect { redirect, .. } => json!({ "status": redirect.status.as_u16() }),
        Route::Forward { assignment, .. } => {
            let nearest = assignment.tiers.first();
            let endpoints: Vec<Value> = nearest
                .into_iter()
                .flat_map(|tier| &tier.members)
                .filter_map(|index| assignment.endpoints.get(*index as usize))
                .map(|endpoint| {
                    json!({
                        "id": endpoint.id,
                        "cluster": endpoint.remote_cluster(),
                        "locality": endpoint.locality,
                        "identity": endpoint.identity,
                    })
                })
                .collect();
            let status = if endpoints.is_empty() { Some(503) } else { None };
            json!({
                "service": assignment.service.host(),
                "port": assignment.port,
                "endpoints": endpoints,
                "status": status,
            })
        }
    }
}

/// Reads `name: value` lines.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or("header: expected `name: value`")?;
        let name: HeaderName = name.trim().parse().map_err(|_| "header: not a name")?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| "header: not a value")?;
        headers.append(name, value);
    }
    Ok(headers)
}
