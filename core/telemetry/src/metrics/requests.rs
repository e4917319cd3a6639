//! What requests are counted in: one shard for each worker, summed by a scrape.
//!
//! Only its worker writes a shard, so an update is a plain load and store of a relaxed
//! atomic and touches no cache line that another worker writes. The shard's lock is
//! taken only when a label set is seen for the first time, and by a scrape.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::access::{AccessRecord, HopRole, Protocol, ResponseFlag};
use crate::metrics::registry::{OTHER, lock};
use crate::metrics::{Collector, MetricFamily, MetricKind, Point, PointValue};

/// Shards of all workers, as a collector.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics {
    shards: Mutex<Vec<Arc<Shard>>>,
}

impl RequestMetrics {
    /// A shard for one worker, with at most `series_max` series and one for the rest.
    pub(crate) fn writer(&self, series_max: usize, seed: u64) -> ShardWriter {
        let shard = Arc::new(Shard::default());
        lock(&self.shards).push(Arc::clone(&shard));
        ShardWriter { shard, series: Vec::new(), index: HashMap::default(), series_max, seed }
    }
}

impl Collector for Arc<RequestMetrics> {
    fn collect(&self, out: &mut Vec<MetricFamily>) {
        let mut sums: BTreeMap<Labels, Sums> = BTreeMap::new();
        let mut overflow = 0;
        for shard in lock(&self.shards).iter() {
            overflow += shard.overflow.load(Ordering::Relaxed);
            for series in lock(&shard.series).iter() {
                sums.entry(series.labels.clone()).or_default().add(series);
            }
        }
        render(&sums, out);
        out.push(
            MetricFamily::new(
                "isthmus_metric_series_overflow_total",
                "Records counted in the series named other because a worker had too many",
                MetricKind::Counter,
            )
            .with(&[], PointValue::Counter(overflow)),
        );
    }
}

/// A worker's side of its shard.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    shard: Arc<Shard>,
    series: Vec<Arc<Series>>,
    index: HashMap<u64, usize, BuildHasherDefault<AlreadyHashed>>,
    series_max: usize,
    seed: u64,
}

impl ShardWriter {
    /// Counts a request or an ended connection.
    pub(crate) fn record(&mut self, record: &AccessRecord<'_>) {
        let connection = record.is_connection();
        let series = self.series(&Key::new(record));
        bump(&series.count, 1);
        bump(&series.received, record.bytes_received);
        bump(&series.sent, record.bytes_sent);
        if !connection {
            bump(&series.buckets[bucket(record.duration)], 1);
            let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
            bump(&series.micros, micros);
        }
    }

    /// Counts a connection that begins; `record` ends it later.
    pub(crate) fn opened(&mut self, record: &AccessRecord<'_>) {
        // How a connection ends is not known yet, so the label is that of a good end.
        let record = AccessRecord { flag: ResponseFlag::None, ..*record };
        let series = self.series(&Key::new(&record));
        bump(&series.opened, 1);
    }

    fn series(&mut self, key: &Key<'_>) -> &Series {
        // Label sets whose hashes meet sit at the next number; with 64 bits and a few
        // thousand series that hardly ever happens.
        let mut hash = key.hash(self.seed);
        let position = loop {
            match self.index.get(&hash) {
                Some(position) if key.is(&self.series[*position].labels) => break *position,
                Some(_) => hash = hash.wrapping_add(1),
                None if self.series.len() < self.series_max => {
                    break self.insert(hash, key.to_labels());
                }
                None if key.is_other() => break self.insert(hash, key.to_labels()),
                None => {
                    bump(&self.shard.overflow, 1);
                    return self.other(key);
                }
            }
        };
        &self.series[position]
    }

    fn other(&mut self, key: &Key<'_>) -> &Series {
        self.series(&key.to_other())
    }

    fn insert(&mut self, hash: u64, labels: Labels) -> usize {
        let series = Arc::new(Series::new(labels));
        lock(&self.shard.series).push(Arc::clone(&series));
        self.series.push(series);
        self.index.insert(hash, self.series.len() - 1);
        self.series.len() - 1
    }
}

#[derive(Debug, Default)]
struct Shard {
    series: Mutex<Vec<Arc<Series>>>,
    overflow: AtomicU64,
}

/// One label set; aligned so that two workers never write one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Series {
    count: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    micros: AtomicU64,
    opened: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    labels: Labels,
}

impl Series {
    fn new(labels: Labels) -> Self {
        Self {
            count: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            labels,
        }
    }
}

#[derive(Debug, Default)]
struct Sums {
    count: u64,
    received: u64,
    sent: u64,
    micros: u64,
    opened: u64,
    buckets: [u64; BUCKETS],
}

impl Sums {
    fn add(&mut self, series: &Series) {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        self.count += read(&series.count);
        self.received += read(&series.received);
        self.sent += read(&series.sent);
        self.micros += read(&series.micros);
        self.opened += read(&series.opened);
        for (sum, cell) in self.buckets.iter_mut().zip(&series.buckets) {
            *sum += read(cell);
        }
    }
}

/// The owned label set of a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    role: HopRole,
    protocol: Protocol,
    status: u16,
    flag: ResponseFlag,
    texts: [Arc<str>; TEXTS],
}

impl Labels {
    fn point(&self, value: PointValue, connection: bool) -> Point {
        let [route, service, namespace, destination, source] =
            self.texts.each_ref().map(|text| text.to_string());
        let mut labels = vec![
            ("reporter", self.role.label().to_owned()),
            ("request_protocol", self.protocol.label().to_owned()),
            ("route", route),
            ("destination_service", service),
            ("destination_service_namespace", namespace),
            ("destination_cluster", destination),
            ("source_cluster", source),
        ];
        if !connection {
            labels.push(("response_code", self.status.to_string()));
        }
        labels.push(("response_flags", self.flag.label().to_owned()));
        Point { labels, value }
    }
}

/// The borrowed label set of a record.
struct Key<'a> {
    role: HopRole,
    protocol: Protocol,
    status: u16,
    flag: ResponseFlag,
    texts: [&'a str; TEXTS],
}

impl<'a> Key<'a> {
    fn new(record: &AccessRecord<'a>) -> Self {
        let texts = [
            record.route,
            record.service,
            record.namespace,
            record.destination_cluster,
            record.source_cluster,
        ];
        Self {
            role: record.role,
            protocol: fold_version(record.protocol),
            // Only what HTTP knows becomes a label: an upstream may send 999 values.
            status: if (100..600).contains(&record.status) { record.status } else { 0 },
            flag: record.flag,
            texts: texts.map(cut),
        }
    }

    fn to_other(&self) -> Key<'static> {
        let (role, protocol) = (self.role, self.protocol);
        Key { role, protocol, status: 0, flag: ResponseFlag::None, texts: [OTHER; TEXTS] }
    }

    fn is_other(&self) -> bool {
        self.texts == [OTHER; TEXTS] && self.status == 0 && self.flag == ResponseFlag::None
    }

    fn is(&self, labels: &Labels) -> bool {
        self.role == labels.role
            && self.protocol == labels.protocol
            && self.status == labels.status
            && self.flag == labels.flag
            && self.texts.iter().zip(&labels.texts).all(|(a, b)| **a == **b)
    }

    fn to_labels(&self) -> Labels {
        Labels {
            role: self.role,
            protocol: self.protocol,
            status: self.status,
            flag: self.flag,
            texts: self.texts.map(Arc::from),
        }
    }

    fn hash(&self, seed: u64) -> u64 {
        let small = (self.role as u64) << 48
            | (self.protocol as u64) << 40
            | (self.flag as u64) << 32
            | u64::from(self.status);
        let mut state = fold(seed, small);
        for text in self.texts {
            state = fold(state, text.len() as u64);
            let mut chunks = text.as_bytes().chunks_exact(8);
            for chunk in &mut chunks {
                let mut word = [0; 8];
                word.copy_from_slice(chunk);
                state = fold(state, u64::from_le_bytes(word));
            }
            let mut word = [0; 8];
            word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
            state = fold(state, u64::from_le_bytes(word));
        }
        state
    }
}

/// Passes on a number that is a hash already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

fn render(sums: &BTreeMap<Labels, Sums>, out: &mut Vec<MetricFamily>) {
    let connection =
        |labels: &Labels| matches!(labels.protocol, Protocol::Tcp | Protocol::Tls | Protocol::Udp);
    let mut counter = |name, help, of_connections, value: fn(&Sums) -> u64| {
        let mut family = MetricFamily::new(name, help, MetricKind::Counter);
        for (labels, sums) in sums.iter().filter(|(labels, _)| connection(labels) == of_connections)
        {
            family.points.push(labels.point(PointValue::Counter(value(sums)), of_connections));
        }
        out.push(family);
    };
    counter("isthmus_requests_total", "Requests that ended", false, |s| s.count);
    counter("isthmus_request_bytes_total", "Body bytes from clients", false, |s| s.received);
    counter("isthmus_response_bytes_total", "Body bytes to clients", false, |s| s.sent);
    counter("isthmus_tcp_connections_opened_total", "Connections that began", true, |s| s.opened);
    counter("isthmus_tcp_connections_closed_total", "Connections that ended", true, |s| s.count);
    counter("isthmus_tcp_received_bytes_total", "Bytes from clients", true, |s| s.received);
    counter("isthmus_tcp_sent_bytes_total", "Bytes to clients", true, |s| s.sent);
    let mut durations = MetricFamily::new(
        "isthmus_request_duration_milliseconds",
        "Time from the first byte of a request to the last byte of its response",
        MetricKind::Histogram,
    );
    for (labels, sums) in sums.iter().filter(|(labels, _)| !connection(labels)) {
        let value = PointValue::Histogram {
            bounds: &DURATION_BOUNDS_MILLISECONDS,
            counts: sums.buckets.to_vec(),
            sum: sums.micros as f64 / 1000.0,
        };
        durations.points.push(labels.point(value, false));
    }
    out.push(durations);
}

/// Adds to a cell that only the calling worker writes; needs no locked instruction.
fn bump(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

fn bucket(duration: Duration) -> usize {
    let millis = duration.as_secs_f64() * 1000.0;
    DURATION_BOUNDS_MILLISECONDS.partition_point(|bound| *bound < millis)
}

/// Versions of HTTP are one label, so that an upgrade of clients splits no series.
fn fold_version(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Http3 => Protocol::Http1,
        Protocol::Grpc | Protocol::Tcp | Protocol::Tls | Protocol::Udp => protocol,
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= LABEL_BYTES_MAX {
        return text;
    }
    &text[..text.floor_char_boundary(LABEL_BYTES_MAX)]
}

fn fold(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(HASH_MULTIPLIER);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Upper bounds of the buckets of `isthmus_request_duration_milliseconds`.
pub(crate) const DURATION_BOUNDS_MILLISECONDS: [f64; BUCKETS - 1] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
    30_000.0, 60_000.0, 300_000.0,
];

const BUCKETS: usize = 18;
const TEXTS: usize = 5;
const LABEL_BYTES_MAX: usize = 256;
/// The odd 64-bit constant of PCG's multiplier.
const HASH_MULTIPLIER: u64 = 6_364_136_223_846_793_005;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::metrics::{ExpositionFormat, MetricsRegistry, render_metrics};

    fn request(route: &'static str, status: u16) -> AccessRecord<'static> {
        AccessRecord {
            route,
            status,
            service: "cart",
            namespace: "shop",
            destination_cluster: "west",
            source_cluster: "east",
            duration: Duration::from_micros(2500),
            bytes_received: 10,
            bytes_sent: 100,
            ..AccessRecord::new(HopRole::Outbound, Protocol::Http2, UNIX_EPOCH)
        }
    }

    fn text(metrics: &Arc<RequestMetrics>) -> String {
        let registry = MetricsRegistry::new();
        registry.collector(Arc::clone(metrics));
        render_metrics(&registry.gather(), ExpositionFormat::Prometheus)
    }

    #[test]
    fn a_scrape_sums_over_the_workers() {
        let metrics = Arc::new(RequestMetrics::default());
        let (mut first, mut second) = (metrics.writer(16, 1), metrics.writer(16, 2));
        first.record(&request("r", 200));
        first.record(&AccessRecord { protocol: Protocol::Http1, ..request("r", 200) });
        second.record(&request("r", 200));
        second.record(&request("r", 503));
        let text = text(&metrics);
        let labels = "reporter=\"outbound\",request_protocol=\"http\",route=\"r\",\
                      destination_service=\"cart\",destination_service_namespace=\"shop\",\
                      destination_cluster=\"west\",source_cluster=\"east\"";
        let lines = [
            format!(
                "isthmus_requests_total{{{labels},response_code=\"200\",response_flags=\"-\"}} 3"
            ),
            format!(
                "isthmus_requests_total{{{labels},response_code=\"503\",response_flags=\"-\"}} 1"
            ),
            format!(
                "isthmus_response_bytes_total{{{labels},response_code=\"200\",\
                 response_flags=\"-\"}} 300"
            ),
            format!(
                "isthmus_request_duration_milliseconds_bucket{{{labels},response_code=\"200\",\
                 response_flags=\"-\",le=\"1\"}} 0"
            ),
            format!(
                "isthmus_request_duration_milliseconds_bucket{{{labels},response_code=\"200\",\
                 response_flags=\"-\",le=\"2.5\"}} 3"
            ),
            format!(
                "isthmus_request_duration_milliseconds_sum{{{labels},response_code=\"200\",\
                 response_flags=\"-\"}} 7.5"
            ),
        ];
        for line in lines {
            assert!(text.contains(&(line.clone() + "\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn connections_have_their_own_metrics() {
        let metrics = Arc::new(RequestMetrics::default());
        let mut writer = metrics.writer(16, 1);
        let connection = AccessRecord { protocol: Protocol::Tcp, status: 0, ..request("r", 0) };
        writer.opened(&connection);
        writer.opened(&connection);
        writer.record(&connection);
        let text = text(&metrics);
        assert!(text.contains("isthmus_tcp_connections_opened_total{reporter=\"outbound\""));
        assert!(!text.contains("isthmus_requests_total{") && !text.contains("response_code"));
        let ends_in = |name: &str, value: &str| {
            text.lines().any(|line| line.starts_with(name) && line.ends_with(value))
        };
        assert!(ends_in("isthmus_tcp_connections_opened_total{", " 2"));
        assert!(ends_in("isthmus_tcp_connections_closed_total{", " 1"));
        assert!(ends_in("isthmus_tcp_sent_bytes_total{", " 100"));
    }

    /// security.md S-06.
    #[test]
    fn a_flood_of_names_stays_within_the_bound() {
        let metrics = Arc::new(RequestMetrics::default());
        let mut writer = metrics.writer(100, 1);
        for index in 0..5000 {
            let name = format!("host-{index}");
            writer.record(&AccessRecord { service: &name, ..request("r", 200) });
        }
        assert_eq!(writer.series.len(), 101);
        let text = text(&metrics);
        assert!(text.contains("isthmus_metric_series_overflow_total 4900\n"));
        let other = text
            .lines()
            .find(|line| line.starts_with("isthmus_requests_total{") && line.contains("other"));
        assert!(other.unwrap().ends_with(" 4900"));
    }

    #[test]
    fn statuses_that_http_does_not_know_are_one_label() {
        let metrics = Arc::new(RequestMetrics::default());
        let mut writer = metrics.writer(100, 1);
        for status in [0, 99, 600, 999, u16::MAX] {
            writer.record(&request("r", status));
        }
        assert_eq!(writer.series.len(), 1);
    }
}
