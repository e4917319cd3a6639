//! Metrics: counted on the workers, gathered once for each scrape or export.
//!
//! [`MetricsRegistry::gather`] turns everything registered into plain
//! [`MetricFamily`] values, and three renderers read those: the Prometheus text format,
//! OpenMetrics, and OTLP. So the numbers that a scrape shows and the numbers that are
//! exported are the same sums. (A registry that can only print itself in one format, as
//! `prometheus-client` does, cannot feed OTLP, and its OpenMetrics output alone fails
//! `promtool check metrics`.)
//!
//! Every family is bounded: past the bound, new label sets are counted in one series
//! whose labels are all `other`, and the overflow is counted (security.md S-06).

mod family;
mod registry;
pub(crate) mod requests;
mod text;

pub use crate::metrics::family::{MetricFamily, MetricKind, Point, PointValue};
pub use crate::metrics::registry::{
    Collector, Counter, CounterFamily, Gauge, GaugeFamily, Histogram, MetricsRegistry,
};
pub use crate::metrics::text::{ExpositionFormat, render_metrics};
