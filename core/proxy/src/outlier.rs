//! Passive outlier ejection: an endpoint that keeps failing is left out for a while.
//!
//! Sans-IO: one [`Outlier`] for each endpoint and worker, told of each outcome with the
//! time. An endpoint is ejected after a run of failures, for a time that grows with each
//! ejection; the first success after its return clears the count of ejections. The
//! balancer never ejects more than the settings' share of a tier.

use std::time::{Duration, Instant};

/// When an endpoint is left out.
///
/// Names and defaults follow Istio's `outlierDetection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Answers 502, 503, 504 or resets in a row before ejection. Default 5.
    pub consecutive_gateway_errors: u32,
    /// Failed connections in a row before ejection. Default 2.
    pub consecutive_connect_failures: u32,
    /// Time of the first ejection; the n-th lasts n times as long. Default 10 s.
    pub base_ejection_time: Duration,
    /// The longest ejection. Default 300 s.
    pub max_ejection_time: Duration,
    /// The share of a tier that may be ejected, in percent. Default 100: a tier that fails
    /// as a whole gives way to the next one.
    pub max_ejection_percent: u8,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            consecutive_gateway_errors: 5,
            consecutive_connect_failures: 2,
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 100,
        }
    }
}

/// What a request to an endpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No connection could be made.
    ConnectFailure,
    /// 502, 503, 504, or the connection broke before an answer.
    GatewayError,
    /// Anything else.
    Success,
}

impl Outcome {
    /// What an answer with this status counts as.
    pub(crate) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::GatewayError,
            _ => Self::Success,
        }
    }
}

/// The recent history of one endpoint.
#[derive(Debug, Default, Clone)]
pub struct Outlier {
    gateway_errors: u32,
    connect_failures: u32,
    ejections: u32,
    ejected_until: Option<Instant>,
}

impl Outlier {
    /// Notes an outcome; returns whether the endpoint is ejected by it.
    pub fn record(&mut self, now: Instant, outcome: Outcome, settings: &OutlierSettings) -> bool {
        match outcome {
            Outcome::Success => {
                self.gateway_errors = 0;
                self.connect_failures = 0;
                self.ejections = 0;
                self.ejected_until = None;
                return false;
            }
            Outcome::GatewayError => self.gateway_errors += 1,
            Outcome::ConnectFailure => self.connect_failures += 1,
        }
        let over = self.gateway_errors >= settings.consecutive_gateway_errors
            || self.connect_failures >= settings.consecutive_connect_failures;
        if !over || self.is_ejected(now) {
            return false;
        }
        self.gateway_errors = 0;
        self.connect_failures = 0;
        self.ejections = self.ejections.saturating_add(1);
        let time = settings.base_ejection_time.saturating_mul(self.ejections);
        self.ejected_until = Some(now + time.min(settings.max_ejection_time));
        true
    }

    /// Whether the endpoint is left out now.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_failures_ejects_for_a_growing_time() {
        let settings = OutlierSettings::default();
        let start = isthmus_runtime::clock::now();
        let mut outlier = Outlier::default();
        for _ in 0..4 {
            assert!(!outlier.record(start, Outcome::GatewayError, &settings));
        }
        assert!(outlier.record(start, Outcome::GatewayError, &settings));
        assert!(outlier.is_ejected(start + Duration::from_secs(9)));
        let back = start + Duration::from_secs(10);
        assert!(!outlier.is_ejected(back));
        assert!(!outlier.record(back, Outcome::ConnectFailure, &settings));
        assert!(outlier.record(back, Outcome::ConnectFailure, &settings));
        assert!(outlier.is_ejected(back + Duration::from_secs(19)));
        assert!(!outlier.is_ejected(back + Duration::from_secs(20)));
    }

    #[test]
    fn a_success_clears_the_history() {
        let settings = OutlierSettings::default();
        let now = isthmus_runtime::clock::now();
        let mut outlier = Outlier::default();
        for _ in 0..100 {
            assert!(!outlier.record(now, Outcome::ConnectFailure, &settings));
            outlier.record(now, Outcome::Success, &settings);
        }
        assert!(!outlier.is_ejected(now));
    }
}
