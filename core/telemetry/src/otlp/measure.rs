//! Metrics on their way to the collector, from the same sums that a scrape shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::metrics::{MetricFamily, MetricKind, MetricsRegistry, Point, PointValue};
use crate::otlp::convert;
use crate::otlp::pipeline::Counts;
use crate::resource::Resource;
use crate::timestamp::unix_nanos;

/// The task that exports metrics.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) client: MetricsServiceClient<Channel>,
    pub(crate) registry: MetricsRegistry,
    pub(crate) resource: Arc<Resource>,
    pub(crate) since: SystemTime,
    pub(crate) counts: Counts,
    pub(crate) interval: Duration,
}

impl Measure {
    /// Exports at every interval, and a last time when `closing` becomes true.
    ///
    /// A failed export is not repeated: sums are cumulative, so the next one has it all.
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = interval.tick() => false,
                // An error means that the owner is gone, which is the end as well.
                _ = closing.wait_for(|closing| *closing) => true,
            };
            self.export().await;
            if last {
                return;
            }
        }
    }

    async fn export(&mut self) {
        let times = (unix_nanos(self.since), unix_nanos(isthmus_runtime::clock::wall()));
        let families = self.registry.gather();
        let count = families.iter().map(|family| family.points.len() as u64).sum();
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(convert::resource(&self.resource)),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(convert::scope()),
                    metrics: families.iter().map(|family| metric(family, times)).collect(),
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        match self.client.export(request).await {
            Ok(_) => self.counts.exported.with(&["metrics"]).add(count),
            Err(status) => {
                let code = status.code();
                tracing::debug!(?code, message = status.message(), "cannot export metrics");
                self.counts.dropped.with(&["metrics", "export_failed"]).add(count);
            }
        }
    }
}

fn metric(family: &MetricFamily, times: (u64, u64)) -> Metric {
    let data = match family.kind {
        MetricKind::Counter => Data::Sum(Sum {
            data_points: family.points.iter().map(|point| number(point, times)).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        MetricKind::Gauge => Data::Gauge(Gauge {
            data_points: family.points.iter().map(|point| number(point, times)).collect(),
        }),
        MetricKind::Histogram => Data::Histogram(Histogram {
            data_points: family.points.iter().filter_map(|point| buckets(point, times)).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    // Collectors that write Prometheus add `_total` to monotonic sums themselves.
    let name = family.name.strip_suffix("_total").unwrap_or(family.name);
    Metric {
        name: name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(point: &Point, (since, now): (u64, u64)) -> NumberDataPoint {
    let value = match &point.value {
        PointValue::Counter(value) => Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX)),
        PointValue::Gauge(value) => Value::AsDouble(*value),
        PointValue::Histogram { sum, .. } => Value::AsDouble(*sum),
    };
    NumberDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn buckets(point: &Point, (since, now): (u64, u64)) -> Option<HistogramDataPoint> {
    let PointValue::Histogram { bounds, counts, sum } = &point.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    point.labels.iter().map(|(key, value)| convert::text_attribute(key, value)).collect()
}

/// Spec: UCUM, as OTLP wants units.
fn unit(name: &str) -> &'static str {
    let units = [("_milliseconds", "ms"), ("_seconds", "s"), ("_bytes", "By"), ("_ratio", "1")];
    units.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("", |(_, unit)| unit)
}
