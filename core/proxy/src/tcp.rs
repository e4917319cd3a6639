//! Opaque TCP: one connection in, one out, bytes both ways, one record.

use std::rc::Rc;
use std::sync::Arc;

use isthmus_hbone::{SpliceEnd, SpliceLimits, splice};
use isthmus_model::{Assignment, EndpointTarget};
use isthmus_runtime::clock;
use isthmus_telemetry::{AccessRecord, HopRole, Protocol, ResponseFlag};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::balancer::{Picked, Tried};
use crate::connect::{Io, Purpose};
use crate::outlier::Outcome;
use crate::pool;
use crate::server::Client;
use crate::upstream_tls::UpstreamTls;
use crate::worker::Worker;

/// What a relayed connection is to the hop that relays it.
#[derive(Debug, Clone)]
pub struct Leg {
    /// The hop.
    pub role: HopRole,
    /// What the client speaks: TCP, or TLS that is passed through.
    pub protocol: Protocol,
    /// The name of the route that was taken; empty for none.
    pub route: String,
    /// The TLS that plain endpoints are spoken to with. One that cannot be used refuses
    /// the connection before anything is connected.
    pub tls: Option<UpstreamTls>,
}

/// Carries a client's bytes to an endpoint of the assignment until both sides have ended.
pub async fn relay<S>(
    worker: Rc<Worker>,
    client: Client,
    stream: S,
    role: HopRole,
    assignment: Arc<Assignment>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let leg = Leg { role, protocol: Protocol::Tcp, route: String::new(), tls: None };
    relay_leg(worker, client, stream, leg, assignment).await;
}

/// [`relay`] with a record that tells more.
pub async fn relay_leg<S>(
    worker: Rc<Worker>,
    client: Client,
    mut stream: S,
    leg: Leg,
    assignment: Arc<Assignment>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _in_flight = worker.stop().guard();
    let (started, wall) = (clock::now(), clock::wall());
    // Not the pin: a connection of hours must not keep an old snapshot.
    let cluster = worker.pin().node.cluster.clone();
    let connected = connect(&worker, &assignment, leg.tls.as_ref()).await;
    let mut record = AccessRecord {
        client: Some(client.address),
        authority: client.server_name.as_deref().unwrap_or("").as_bytes(),
        route: &leg.route,
        service: assignment.service.name.as_str(),
        namespace: assignment.service.namespace.as_str(),
        source_cluster: cluster.as_str(),
        source_identity: &client.identity,
        ..AccessRecord::new(leg.role, leg.protocol, wall)
    };
    worker.recorder.connection_opened(&record);
    let (picked, mut upstream, attempts) = match connected {
        Ok(connected) => connected,
        Err((flag, detail, attempts)) => {
            let duration = clock::now().saturating_duration_since(started);
            let failed = AccessRecord { flag, detail: &detail, attempts, duration, ..record };
            worker.recorder.record(&failed);
            return;
        }
    };
    let endpoint = picked.endpoint();
    record.endpoint = endpoint.id.as_str();
    record.attempts = attempts;
    match &endpoint.target {
        EndpointTarget::Local { address, .. } => {
            record.upstream = Some(*address);
            record.destination_cluster = cluster.as_str();
        }
        EndpointTarget::Remote { cluster, .. } => record.destination_cluster = cluster.as_str(),
    }
    let mut stop = worker.stop().clone();
    let limits = SpliceLimits::default();
    tokio::select! {
        outcome = splice(&mut stream, &mut upstream, &limits) => {
            record.bytes_received = outcome.a_to_b;
            record.bytes_sent = outcome.b_to_a;
            if !matches!(outcome.end, SpliceEnd::Complete) {
                record.flag = ResponseFlag::UpstreamReset;
            }
        }
        () = stop.forced() => record.flag = ResponseFlag::Draining,
    }
    record.duration = clock::now().saturating_duration_since(started);
    worker.recorder.record(&record);
}

type Failed = (ResponseFlag, String, u32);

/// Connects to an endpoint; another one is tried when the connection fails.
pub(crate) async fn connect(
    worker: &Rc<Worker>,
    assignment: &Arc<Assignment>,
    tls: Option<&UpstreamTls>,
) -> Result<(Picked, Box<dyn Io>, u32), Failed> {
    if let Some(tls) = tls
        && let Some(reason) = tls.unusable()
    {
        let detail = format!("BackendTLSPolicy {} cannot be used: {reason}", tls.policy.policy);
        return Err((ResponseFlag::UpstreamTls, detail, 0));
    }
    let balancer = worker.balancer(assignment);
    let mut tried = Tried::default();
    let mut last = (ResponseFlag::NoHealthyUpstream, "no usable endpoint".to_owned());
    let limit = worker.settings.connect_timeout;
    for attempt in 1..=worker.settings.attempts_max {
        let Some(picked) = worker.pick(&balancer, &tried) else {
            return Err((last.0, last.1, attempt - 1));
        };
        let how = (None, tls);
        let to = pool::destination(picked.assignment(), picked.endpoint(), Purpose::Bytes, how);
        match tokio::time::timeout(limit, worker.connector.connect(to)).await {
            Ok(Ok(connected)) => {
                worker.note_outcome(&picked, Outcome::Success);
                return Ok((picked, connected.io.boxed(), attempt));
            }
            Ok(Err(error)) => last = (error.flag(), error.to_string()),
            Err(_) => {
                last = (ResponseFlag::UpstreamConnectFailure, "connecting took too long".into());
            }
        }
        worker.note_outcome(&picked, Outcome::ConnectFailure);
        tried.add(&picked);
    }
    Err((last.0, last.1, worker.settings.attempts_max))
}
