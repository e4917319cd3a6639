//! The whole way: recorders on worker threads, a real OTLP server over gRPC, the log.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::access::{AccessFormat, AccessRecord, HopRole, Protocol, ResponseFlag};
use crate::access_log::AccessLogTarget;
use crate::metrics::{ExpositionFormat, render_metrics};

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<trace::ExportTraceServiceRequest>>>,
    logs: Arc<Mutex<Vec<logs::ExportLogsServiceRequest>>>,
    metrics: Arc<Mutex<Vec<metrics::ExportMetricsServiceRequest>>>,
    /// How many exports of spans are answered with an error first.
    failures: Arc<Mutex<u32>>,
}

#[async_trait::async_trait]
impl trace::trace_service_server::TraceService for Collector {
    async fn export(
        &self,
        request: Request<trace::ExportTraceServiceRequest>,
    ) -> Result<Response<trace::ExportTraceServiceResponse>, Status> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(Status::unavailable("not yet"));
        }
        self.spans.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[async_trait::async_trait]
impl logs::logs_service_server::LogsService for Collector {
    async fn export(
        &self,
        request: Request<logs::ExportLogsServiceRequest>,
    ) -> Result<Response<logs::ExportLogsServiceResponse>, Status> {
        self.logs.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[async_trait::async_trait]
impl metrics::metrics_service_server::MetricsService for Collector {
    async fn export(
        &self,
        request: Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics::ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

async fn start(collector: &Collector, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(trace::trace_service_server::TraceServiceServer::new(collector.clone()))
        .add_service(logs::logs_service_server::LogsServiceServer::new(collector.clone()))
        .add_service(metrics::metrics_service_server::MetricsServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tasks.spawn(async move { server.await.unwrap() });
    address
}

fn options(endpoint: SocketAddr) -> TelemetryOptions {
    let resource = Resource::new("isthmus-ingress")
        .with_cluster("west")
        .with_locality("eu-1", "eu-1a")
        .with_instance("pod-1");
    TelemetryOptions {
        sampling_ratio: 1.0,
        respect_parent: true,
        otlp: Some(OtlpOptions::new(&format!("http://{endpoint}"))),
        access_log: AccessLogOptions {
            mode: AccessLogMode::Failures,
            format: AccessFormat::Json,
            target: AccessLogTarget::OtlpOnly,
        },
        seed: [9; 32],
        ..TelemetryOptions::new(resource)
    }
}

fn record(role: HopRole, context: &crate::TraceContext) -> AccessRecord<'static> {
    AccessRecord {
        method: "GET",
        path: b"/cart?card=4111",
        authority: b"shop.test:8443",
        route: "shop/cart/0",
        service: "cart",
        namespace: "shop",
        destination_cluster: "west",
        endpoint: "ep-1",
        status: 200,
        duration: Duration::from_millis(3),
        span: Some(context.span_ref()),
        ..AccessRecord::new(role, Protocol::Http2, UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    match value {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text),
        _ => None,
    }
}

/// A request that passes ingress, outbound and inbound, each a recorder of its own, lands
/// in one trace with three spans, each the child of the one before.
#[tokio::test]
async fn every_hop_of_a_request_is_one_span_of_one_trace() {
    let (collector, mut server) = (Collector::default(), JoinSet::new());
    *collector.failures.lock().unwrap() = 1;
    let endpoint = start(&collector, &mut server).await;
    let telemetry = Telemetry::start(options(endpoint)).unwrap();
    let hops = [HopRole::Ingress, HopRole::Outbound, HopRole::Inbound];
    let seeds: Vec<_> = hops.iter().map(|_| telemetry.recorder()).collect();
    let walk = move || {
        let mut headers = HeaderMap::new();
        let mut contexts = Vec::new();
        for (role, seed) in hops.iter().zip(seeds) {
            let recorder = seed.into_recorder();
            let context = recorder.begin_trace(&headers);
            context.write_headers(&mut headers);
            recorder.record(&record(*role, &context));
            contexts.push(context);
        }
        contexts
    };
    // Recorders are made and used on a thread that is not the control runtime's.
    let contexts = std::thread::spawn(walk).join().unwrap();
    assert_eq!(telemetry.shutdown(Duration::from_secs(20)).await, Flush::Complete);

    let requests = collector.spans.lock().unwrap();
    let resources: Vec<_> = requests.iter().flat_map(|r| &r.resource_spans).collect();
    let attributes = &resources[0].resource.as_ref().unwrap().attributes;
    assert_eq!(text(attributes, "service.name"), Some("isthmus-ingress"));
    assert_eq!(text(attributes, "k8s.cluster.name"), Some("west"));
    assert_eq!(text(attributes, "cloud.availability_zone"), Some("eu-1a"));
    let spans: Vec<_> =
        resources.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).collect();
    assert_eq!(spans.len(), 3);
    let mut parent = Vec::new();
    for (span, context) in spans.iter().zip(&contexts) {
        assert_eq!(span.trace_id, contexts[0].trace_id.to_bytes());
        assert_eq!(span.span_id, context.span_id.to_bytes());
        assert_eq!(span.parent_span_id, parent);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_000_000);
        assert_eq!(span.name, "GET shop/cart/0");
        assert_eq!(text(&span.attributes, "url.path"), Some("/cart"));
        assert_eq!(text(&span.attributes, "server.address"), Some("shop.test"));
        assert_eq!(text(&span.attributes, "isthmus.upstream.cluster"), Some("west"));
        assert_eq!(text(&span.attributes, "isthmus.upstream.endpoint"), Some("ep-1"));
        parent = context.span_id.to_bytes().to_vec();
    }
    assert_eq!(spans.iter().map(|span| span.kind).collect::<Vec<_>>(), [2, 3, 2]);
}

#[tokio::test]
async fn failures_are_log_records_and_metrics_are_the_same_sums() {
    let (collector, mut server) = (Collector::default(), JoinSet::new());
    let endpoint = start(&collector, &mut server).await;
    let telemetry = Telemetry::start(options(endpoint)).unwrap();
    let recorder = telemetry.recorder().into_recorder();
    let context = recorder.begin_trace(&HeaderMap::new());
    let good = record(HopRole::Ingress, &context);
    recorder.record(&good);
    let bad = AccessRecord { status: 503, flag: ResponseFlag::NoHealthyUpstream, ..good };
    recorder.record(&bad);
    recorder.flush();
    let registry = telemetry.registry().clone();
    telemetry.shutdown(Duration::from_secs(20)).await;

    let requests = collector.logs.lock().unwrap();
    let records: Vec<_> = requests
        .iter()
        .flat_map(|r| &r.resource_logs)
        .flat_map(|r| &r.scope_logs)
        .flat_map(|s| &s.log_records)
        .collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].trace_id, context.trace_id.to_bytes());
    assert_eq!(text(&records[0].attributes, "error.type"), Some("NoHealthyUpstream"));

    let requests = collector.metrics.lock().unwrap();
    let last = &requests.last().unwrap().resource_metrics[0].scope_metrics[0].metrics;
    let named = |name: &str| last.iter().find(|metric| metric.name == name).unwrap();
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let Some(Data::Sum(sum)) = &named("isthmus_requests").data else { panic!("not a sum") };
    assert_eq!((sum.data_points.len(), sum.is_monotonic), (2, true));
    let durations = named("isthmus_request_duration_milliseconds");
    assert_eq!(durations.unit, "ms");
    let Some(Data::Histogram(histogram)) = &durations.data else { panic!("not a histogram") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.bucket_counts.len()), (1, point.explicit_bounds.len() + 1));
    let text = render_metrics(&registry.gather(), ExpositionFormat::Prometheus);
    assert!(text.contains("isthmus_otlp_exported_items_total{signal=\"logs\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_collector_that_is_down_costs_counted_drops_and_nothing_else() {
    // A port that nobody listens on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let telemetry = Telemetry::start(options(closed)).unwrap();
    let recorder = telemetry.recorder().into_recorder();
    let context = recorder.begin_trace(&HeaderMap::new());
    let records = 128 * 200;
    for _ in 0..records {
        recorder.record(&record(HopRole::Ingress, &context));
    }
    recorder.flush();
    let registry = telemetry.registry().clone();
    assert_eq!(telemetry.shutdown(Duration::from_secs(20)).await, Flush::Complete);
    let dropped: u64 = registry
        .gather()
        .iter()
        .filter(|family| family.name.contains("dropped"))
        .flat_map(|family| &family.points)
        .filter(|point| point.labels.iter().all(|(_, value)| value != "metrics"))
        .map(|point| match point.value {
            PointValue::Counter(value) => value,
            PointValue::Gauge(_) | PointValue::Histogram { .. } => 0,
        })
        .sum();
    assert_eq!(dropped, records);
    let text = render_metrics(&registry.gather(), ExpositionFormat::Prometheus);
    let requests = text.lines().find(|line| line.starts_with("isthmus_requests_total{"));
    assert!(requests.unwrap().ends_with(&format!(" {records}")));
}

#[tokio::test]
async fn the_access_log_has_one_line_for_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let telemetry = Telemetry::start(TelemetryOptions {
        access_log: AccessLogOptions {
            mode: AccessLogMode::All,
            format: AccessFormat::Json,
            target: AccessLogTarget::File(path.clone()),
        },
        ..TelemetryOptions::new(Resource::new("isthmus-sidecar"))
    })
    .unwrap();
    let recorder = telemetry.recorder().into_recorder();
    let context = recorder.begin_trace(&HeaderMap::new());
    for _ in 0..300 {
        recorder.record(&record(HopRole::Inbound, &context));
    }
    drop(recorder);
    assert_eq!(telemetry.shutdown(Duration::from_secs(20)).await, Flush::Complete);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 300);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(!text.contains("4111"));
}

#[tokio::test]
async fn bad_settings_are_refused_with_their_name() {
    for bad in ["https://collector:4317", "collector:4317", "http://[", ""] {
        let telemetry = Telemetry::start(TelemetryOptions {
            otlp: Some(OtlpOptions::new(bad)),
            ..TelemetryOptions::new(Resource::new("test"))
        });
        assert!(matches!(telemetry, Err(TelemetryError::Otlp { .. })), "{bad}");
    }
}

#[test]
fn seeds_differ_between_processes() {
    assert_ne!(random_seed(), random_seed());
}
