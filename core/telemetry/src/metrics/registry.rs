//! The registry: what other crates count, by name.
//!
//! These metrics are for what happens per connection, per configuration or per second:
//! their cells are shared between threads. What happens per request is counted by a
//! [`Recorder`](crate::Recorder), in cells that only its worker writes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::{MetricFamily, MetricKind, Point, PointValue};

/// Adds metrics that are computed when they are gathered.
pub trait Collector: Send + Sync {
    /// Appends families; families of one name from several collectors become one.
    fn collect(&self, out: &mut Vec<MetricFamily>);
}

impl<F: Fn(&mut Vec<MetricFamily>) + Send + Sync> Collector for F {
    fn collect(&self, out: &mut Vec<MetricFamily>) {
        self(out);
    }
}

/// All metrics of a process; clones share them.
///
/// Asking twice for one name gives the same metric. A name that was registered as
/// something else gives a metric that is counted but not shown, and logs an error.
#[derive(Clone, Default)]
pub struct MetricsRegistry {
    inner: Arc<Inner>,
}

impl MetricsRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter without labels; `name` ends in `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.counter_family(name, help, &[]).with(&[])
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauge_family(name, help, &[]).with(&[])
    }

    /// Counters told apart by labels.
    pub fn counter_family(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> CounterFamily {
        CounterFamily { family: self.family((name, help), MetricKind::Counter, labels, &[]) }
    }

    /// Gauges told apart by labels.
    pub fn gauge_family(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> GaugeFamily {
        GaugeFamily { family: self.family((name, help), MetricKind::Gauge, labels, &[]) }
    }

    /// A histogram without labels; `bounds` are inclusive upper bounds, ascending.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
    ) -> Histogram {
        let family = self.family((name, help), MetricKind::Histogram, &[], bounds);
        Histogram { cell: family.cell(&[]) }
    }

    /// Adds metrics that are computed when they are gathered.
    pub fn collector(&self, collector: impl Collector + 'static) {
        lock(&self.inner.collectors).push(Arc::new(collector));
    }

    /// Everything registered, sorted by name, with its values of now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut gathered: Vec<MetricFamily> =
            lock(&self.inner.families).values().map(|family| family.gather()).collect();
        // Collectors may register metrics themselves, so the lock is not held for them.
        let collectors = lock(&self.inner.collectors).clone();
        for collector in collectors {
            collector.collect(&mut gathered);
        }
        let mut sorted: BTreeMap<&'static str, MetricFamily> = BTreeMap::new();
        for family in gathered {
            match sorted.get_mut(family.name) {
                Some(known) => known.points.extend(family.points),
                None => {
                    sorted.insert(family.name, family);
                }
            }
        }
        sorted.into_values().filter(|family| !family.points.is_empty()).collect()
    }

    fn family(
        &self,
        (name, help): (&'static str, &'static str),
        kind: MetricKind,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Arc<Family> {
        let fresh = || {
            let series = Mutex::new(BTreeMap::new());
            Arc::new(Family { name, help, kind, labels, bounds, series })
        };
        let mut families = lock(&self.inner.families);
        let known = families.entry(name).or_insert_with(fresh);
        if known.kind == kind && known.labels == labels && known.bounds == bounds {
            return Arc::clone(known);
        }
        tracing::error!(name, "a metric was registered twice with different kinds or labels");
        fresh()
    }
}

impl fmt::Debug for MetricsRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = lock(&self.inner.families).len();
        f.debug_struct("MetricsRegistry").field("families", &families).finish_non_exhaustive()
    }
}

/// A number that only rises.
#[derive(Debug, Clone)]
pub struct Counter {
    cell: Arc<Cell>,
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.cell.value.fetch_add(count, Ordering::Relaxed);
    }

    /// The value of now.
    pub fn value(&self) -> u64 {
        self.cell.value.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone)]
pub struct Gauge {
    cell: Arc<Cell>,
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.cell.value.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds `change`, which may be negative.
    pub fn add(&self, change: f64) {
        add_float(&self.cell.value, change);
    }

    /// The value of now.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.cell.value.load(Ordering::Relaxed))
    }
}

/// Observations counted in buckets.
#[derive(Debug, Clone)]
pub struct Histogram {
    cell: Arc<Cell>,
}

impl Histogram {
    /// Counts one observation; NaN is not counted.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let bucket = self.cell.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.cell.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
            add_float(&self.cell.value, value);
        }
    }
}

/// Counters told apart by labels.
#[derive(Debug, Clone)]
pub struct CounterFamily {
    family: Arc<Family>,
}

impl CounterFamily {
    /// The counter with these label values, in the order of the names; keep it where it
    /// is used often.
    pub fn with(&self, values: &[&str]) -> Counter {
        Counter { cell: self.family.cell(values) }
    }

    /// Forgets a series.
    pub fn remove(&self, values: &[&str]) {
        self.family.remove(values);
    }
}

/// Gauges told apart by labels.
#[derive(Debug, Clone)]
pub struct GaugeFamily {
    family: Arc<Family>,
}

impl GaugeFamily {
    /// The gauge with these label values, in the order of the names; keep it where it is
    /// used often.
    pub fn with(&self, values: &[&str]) -> Gauge {
        Gauge { cell: self.family.cell(values) }
    }

    /// Forgets a series, for example of a peer that is gone.
    pub fn remove(&self, values: &[&str]) {
        self.family.remove(values);
    }
}

#[derive(Default)]
struct Inner {
    families: Mutex<BTreeMap<&'static str, Arc<Family>>>,
    collectors: Mutex<Vec<Arc<dyn Collector>>>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    bounds: &'static [f64],
    series: Mutex<BTreeMap<Vec<String>, Arc<Cell>>>,
}

impl Family {
    fn cell(&self, values: &[&str]) -> Arc<Cell> {
        let mut key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        // Missing values are empty and surplus ones are dropped, which shows in the output.
        key.resize(self.labels.len(), String::new());
        let mut series = lock(&self.series);
        if series.len() >= FAMILY_SERIES_MAX && !series.contains_key(&key) {
            key.fill(OTHER.to_owned());
        }
        Arc::clone(series.entry(key).or_insert_with(|| Arc::new(Cell::new(self.bounds))))
    }

    fn remove(&self, values: &[&str]) {
        let key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        lock(&self.series).remove(&key);
    }

    fn gather(&self) -> MetricFamily {
        let point = |(values, cell): (&Vec<String>, &Arc<Cell>)| {
            let labels = self.labels.iter().copied().zip(values.iter().cloned()).collect();
            Point { labels, value: cell.point(self.kind) }
        };
        let points = lock(&self.series).iter().map(point).collect();
        MetricFamily { name: self.name, help: self.help, kind: self.kind, points }
    }
}

#[derive(Debug)]
struct Cell {
    /// The count of a counter; the bits of a gauge or of a histogram's sum.
    value: AtomicU64,
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
}

impl Cell {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { value: AtomicU64::new(0), bounds, counts }
    }

    fn point(&self, kind: MetricKind) -> PointValue {
        let value = self.value.load(Ordering::Relaxed);
        match kind {
            MetricKind::Counter => PointValue::Counter(value),
            MetricKind::Gauge => PointValue::Gauge(f64::from_bits(value)),
            MetricKind::Histogram => PointValue::Histogram {
                bounds: self.bounds,
                counts: self.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect(),
                sum: f64::from_bits(value),
            },
        }
    }
}

fn add_float(cell: &AtomicU64, change: f64) {
    let add = |bits| Some((f64::from_bits(bits) + change).to_bits());
    // The closure always gives a value, so the update always happens.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

/// A panic of another holder leaves plain counters behind, which are still good.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Value of every label of the series that takes what is above a bound.
pub(super) const OTHER: &str = "other";
/// Series of one registered family; what is above is counted as `other`.
const FAMILY_SERIES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ExpositionFormat, render_metrics};

    #[test]
    fn registered_metrics_are_gathered_sorted_by_name() {
        let registry = MetricsRegistry::new();
        registry.gauge("z_ratio", "Z").set(0.25);
        let streams = registry.counter_family("m_streams_total", "M", &["peer"]);
        streams.with(&["west"]).add(2);
        streams.with(&["east"]).inc();
        registry.counter_family("m_streams_total", "M", &["peer"]).with(&["east"]).inc();
        let rtt = registry.histogram("m_rtt_seconds", "R", &[0.01, 0.1]);
        rtt.observe(0.01);
        rtt.observe(5.0);
        rtt.observe(f64::NAN);
        registry.collector(|out: &mut Vec<MetricFamily>| {
            out.push(
                MetricFamily::new("a_build_info", "A", MetricKind::Gauge)
                    .with(&[("version", "1")], PointValue::Gauge(1.0)),
            );
        });
        let text = render_metrics(&registry.gather(), ExpositionFormat::Prometheus);
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "a_build_info{version=\"1\"} 1",
                "m_rtt_seconds_bucket{le=\"0.01\"} 1",
                "m_rtt_seconds_bucket{le=\"0.1\"} 1",
                "m_rtt_seconds_bucket{le=\"+Inf\"} 2",
                "m_rtt_seconds_sum 5.01",
                "m_rtt_seconds_count 2",
                "m_streams_total{peer=\"east\"} 2",
                "m_streams_total{peer=\"west\"} 2",
                "z_ratio 0.25",
            ]
        );
        streams.remove(&["west"]);
        let text = render_metrics(&registry.gather(), ExpositionFormat::Prometheus);
        assert!(!text.contains("west"));
    }

    #[test]
    fn a_conflict_is_not_shown_and_does_not_panic() {
        let registry = MetricsRegistry::new();
        registry.counter("x_total", "X").inc();
        registry.gauge("x_total", "X").set(9.0);
        let families = registry.gather();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].points[0].value, PointValue::Counter(1));
    }

    #[test]
    fn a_family_is_bounded() {
        let registry = MetricsRegistry::new();
        let family = registry.counter_family("n_total", "N", &["name"]);
        for index in 0..FAMILY_SERIES_MAX + 100 {
            family.with(&[&index.to_string()]).inc();
        }
        let points = &registry.gather()[0].points;
        assert_eq!(points.len(), FAMILY_SERIES_MAX + 1);
        let other = points.iter().find(|point| point.labels[0].1 == OTHER).unwrap();
        assert_eq!(other.value, PointValue::Counter(100));
    }
}
