//! A gathered metric: plain values that every renderer reads.

/// One metric with all its series, as gathered.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricFamily {
    /// The name as Prometheus shows it; a counter's ends in `_total`.
    pub name: &'static str,
    /// What is measured, one sentence without a full stop.
    pub help: &'static str,
    /// How the values behave.
    pub kind: MetricKind,
    /// The series.
    pub points: Vec<Point>,
}

impl MetricFamily {
    /// A family without series.
    pub fn new(name: &'static str, help: &'static str, kind: MetricKind) -> Self {
        Self { name, help, kind, points: Vec::new() }
    }

    /// Adds a series.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &str)], value: PointValue) -> Self {
        let labels = labels.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        self.points.push(Point { labels, value });
        self
    }
}

/// How the values of a metric behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises, from the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One series of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Label names and values, in the order they are shown.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: PointValue,
}

/// The value of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum PointValue {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram; `counts` has one more entry than `bounds`, for what is above.
    Histogram {
        /// Inclusive upper bounds, ascending.
        bounds: &'static [f64],
        /// Observations in each bucket, not cumulative.
        counts: Vec<u64>,
        /// Sum of all observations.
        sum: f64,
    },
}
