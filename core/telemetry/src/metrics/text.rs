//! Gathered metrics as text.
//!
//! Spec: Prometheus exposition formats, text format 0.0.4; OpenMetrics 1.0. They differ
//! in how a counter is named in its `TYPE` line, in escapes of `HELP`, and in `# EOF`.

use std::fmt::Write;

use crate::metrics::{MetricFamily, MetricKind, PointValue};

/// The text formats that scrapers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`, which everything reads.
    Prometheus,
}

impl ExpositionFormat {
    /// The best format for an `Accept` header.
    pub fn for_accept(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `content-type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Renders gathered metrics.
pub fn render_metrics(families: &[MetricFamily], format: ExpositionFormat) -> String {
    let mut out = String::with_capacity(families.len() * FAMILY_BYTES_TYPICAL);
    for family in families {
        render_family(&mut out, family, format);
    }
    if format == ExpositionFormat::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn render_family(out: &mut String, family: &MetricFamily, format: ExpositionFormat) {
    let open = format == ExpositionFormat::OpenMetrics;
    let name = match family.kind {
        MetricKind::Counter if open => family.name.strip_suffix("_total").unwrap_or(family.name),
        MetricKind::Counter | MetricKind::Gauge | MetricKind::Histogram => family.name,
    };
    let kind = match family.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    // Writing to a String does not fail, here and below.
    let _ = write!(out, "# HELP {name} ");
    push_escaped(out, family.help, open);
    let _ = writeln!(out, "\n# TYPE {name} {kind}");
    for point in &family.points {
        let labels = &point.labels;
        match &point.value {
            PointValue::Counter(value) => {
                sample(out, (family.name, ""), labels, None);
                let _ = writeln!(out, "{value}");
            }
            PointValue::Gauge(value) => {
                sample(out, (family.name, ""), labels, None);
                push_number(out, *value);
                out.push('\n');
            }
            PointValue::Histogram { bounds, counts, sum } => {
                render_histogram(out, family.name, labels, (bounds, counts, *sum));
            }
        }
    }
}

type Labels = [(&'static str, String)];

fn render_histogram(
    out: &mut String,
    name: &str,
    labels: &Labels,
    (bounds, counts, sum): (&[f64], &[u64], f64),
) {
    let mut total = 0;
    for (index, count) in counts.iter().enumerate() {
        total += count;
        sample(out, (name, "_bucket"), labels, Some(bounds.get(index).copied()));
        let _ = writeln!(out, "{total}");
    }
    sample(out, (name, "_sum"), labels, None);
    push_number(out, sum);
    out.push('\n');
    sample(out, (name, "_count"), labels, None);
    let _ = writeln!(out, "{total}");
}

/// Name and labels of a sample, up to the space before its value; `le` is the bound of a
/// bucket, `Some(None)` that of the last.
fn sample(out: &mut String, name: (&str, &str), labels: &Labels, le: Option<Option<f64>>) {
    out.push_str(name.0);
    out.push_str(name.1);
    let mut open = '{';
    for (key, value) in labels {
        out.push(open);
        open = ',';
        let _ = write!(out, "{key}=\"");
        push_escaped(out, value, true);
        out.push('"');
    }
    if let Some(bound) = le {
        out.push(open);
        open = ',';
        out.push_str("le=\"");
        push_number(out, bound.unwrap_or(f64::INFINITY));
        out.push('"');
    }
    if open == ',' {
        out.push('}');
    }
    out.push(' ');
}

fn push_number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(char),
        }
    }
}

const FAMILY_BYTES_TYPICAL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_families() -> Vec<MetricFamily> {
        vec![
            MetricFamily::new("a_total", "A \"quoted\" help", MetricKind::Counter)
                .with(&[("x", "1\n\"\\"), ("y", "2")], PointValue::Counter(7)),
            MetricFamily::new("b", "B", MetricKind::Gauge).with(&[], PointValue::Gauge(-0.5)),
            MetricFamily::new("c_milliseconds", "C", MetricKind::Histogram).with(
                &[("x", "1")],
                PointValue::Histogram { bounds: &[0.5, 10.0], counts: vec![1, 2, 3], sum: 60.25 },
            ),
        ]
    }

    #[test]
    fn prometheus_text_is_exact() {
        assert_eq!(
            render_metrics(&sample_families(), ExpositionFormat::Prometheus),
            concat!(
                "# HELP a_total A \"quoted\" help\n",
                "# TYPE a_total counter\n",
                "a_total{x=\"1\\n\\\"\\\\\",y=\"2\"} 7\n",
                "# HELP b B\n",
                "# TYPE b gauge\n",
                "b -0.5\n",
                "# HELP c_milliseconds C\n",
                "# TYPE c_milliseconds histogram\n",
                "c_milliseconds_bucket{x=\"1\",le=\"0.5\"} 1\n",
                "c_milliseconds_bucket{x=\"1\",le=\"10\"} 3\n",
                "c_milliseconds_bucket{x=\"1\",le=\"+Inf\"} 6\n",
                "c_milliseconds_sum{x=\"1\"} 60.25\n",
                "c_milliseconds_count{x=\"1\"} 6\n",
            )
        );
    }

    #[test]
    fn open_metrics_differs_where_its_specification_says() {
        let text = render_metrics(&sample_families(), ExpositionFormat::OpenMetrics);
        assert!(text.starts_with("# HELP a A \\\"quoted\\\" help\n# TYPE a counter\na_total{"));
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn the_format_follows_accept() {
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(ExpositionFormat::for_accept(accept), ExpositionFormat::OpenMetrics);
        assert_eq!(ExpositionFormat::for_accept("*/*"), ExpositionFormat::Prometheus);
    }
}
