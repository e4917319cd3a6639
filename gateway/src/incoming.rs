//! From a peer's link to this cluster: only to what is exported to that peer.
//!
//! The peer's identity is the one its gateway proved on the link. It names a service, a
//! port and an opaque endpoint id; all three must stand in the export for this peer, and
//! only then is there an address.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use isthmus_hbone::{SpliceLimits, splice};
use isthmus_link::{IncomingStream, RefuseCode, StreamHeader};
use isthmus_model::{ClusterId, Endpoint, EndpointTarget, ServiceScope, Snapshot};
use isthmus_proxy::Worker;
use isthmus_telemetry::{IncomingTrace, ParentSpan, ResponseFlag, SamplingHint, SpanId, TraceId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::eastwest::Shared;
use crate::relay_log::RelayLog;
use crate::standin;

/// Serves the streams that the links hand to this worker.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    mut streams: mpsc::Receiver<IncomingStream>,
) {
    while let Some(stream) = streams.recv().await {
        worker.tasks().spawn(serve_one(Rc::clone(&worker), Arc::clone(&shared), stream));
    }
}

async fn serve_one(worker: Rc<Worker>, shared: Arc<Shared>, stream: IncomingStream) {
    let _in_flight = worker.stop().guard();
    let context = worker.recorder().begin_trace_from(incoming_trace(&stream.header));
    let mut log = RelayLog::begin(&worker, stream.header.service.clone());
    log.span = Some(context.span_ref());
    log.source_cluster = stream.peer.to_string();
    log.source_identity = Some(stream.peer_id.clone());
    log.destination_cluster = shared.cluster.to_string();
    if let Some(endpoint) = &stream.header.endpoint {
        log.endpoint = endpoint.to_string();
    }
    let Some(endpoint) = exported(&worker.pin(), &stream.peer, &stream.header) else {
        let reason = "not exported to this cluster";
        log.refused(ResponseFlag::Refused, reason);
        // A peer that is gone has no use for the answer.
        let _ = stream.refuse(RefuseCode::NotExported, reason).await;
        return;
    };
    match endpoint.target {
        EndpointTarget::Local { mesh: Some(mesh), .. } => {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(mesh.0));
            match connecting.await {
                Ok(Ok(upstream)) => relay(log, stream, upstream).await,
                Ok(Err(error)) => unreachable_endpoint(log, stream, &error.to_string()).await,
                Err(_) => unreachable_endpoint(log, stream, "connecting took too long").await,
            }
        }
        EndpointTarget::Local { address, mesh: None } => {
            standin::serve(worker, &shared, stream, address).await;
        }
        EndpointTarget::Remote { .. } => {
            let reason = "transit is not offered";
            log.refused(ResponseFlag::Refused, reason);
            let _ = stream.refuse(RefuseCode::NotExported, reason).await;
        }
    }
}

async fn relay(mut log: RelayLog, stream: IncomingStream, mut upstream: TcpStream) {
    if upstream.set_nodelay(true).is_err() {
        return;
    }
    if let Ok(mut accepted) = stream.accept().await {
        log.opened();
        let outcome = splice(&mut accepted, &mut upstream, &SpliceLimits::default()).await;
        log.ended(&outcome);
    }
}

async fn unreachable_endpoint(log: RelayLog, stream: IncomingStream, reason: &str) {
    log.refused(ResponseFlag::UpstreamConnectFailure, reason);
    // The reason is ours; the peer learns only that the endpoint did not answer.
    let _ = stream.refuse(RefuseCode::Unreachable, "the endpoint cannot be reached").await;
}

/// The local endpoint behind a peer's header, by the allow-list.
fn exported(snapshot: &Snapshot, peer: &ClusterId, header: &StreamHeader) -> Option<Endpoint> {
    if header.service.scope != ServiceScope::ClusterSet {
        return None;
    }
    let export = snapshot.export(&header.service)?;
    export.endpoint(peer, header.port, header.endpoint.as_ref()?).cloned()
}

fn incoming_trace(header: &StreamHeader) -> IncomingTrace {
    let Some(trace) = &header.trace else {
        return IncomingTrace { parent: None, hint: SamplingHint::Defer };
    };
    let sampled = trace.flags & 1 == 1;
    let hint = if sampled { SamplingHint::Accept } else { SamplingHint::Deny };
    let parent = TraceId::from_bytes(trace.trace_id)
        .zip(SpanId::from_bytes(trace.span_id))
        .map(|(trace_id, span_id)| ParentSpan { trace_id, span_id, state: None });
    IncomingTrace { parent, hint }
}

/// Time to connect to a local endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
