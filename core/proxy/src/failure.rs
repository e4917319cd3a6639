//! Why a request has no answer, as the client and the access log are told.

use std::time::Duration;

use http::StatusCode;
use isthmus_model::Assignment;
use isthmus_telemetry::ResponseFlag;

use crate::connect::ConnectError;

/// Why there is no answer.
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) flag: ResponseFlag,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn no_endpoint(assignment: &Assignment) -> Self {
        let detail =
            format!("{} port {} has no usable endpoint", assignment.service, assignment.port);
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flag: ResponseFlag::NoHealthyUpstream,
            detail,
        }
    }

    pub(crate) fn connect(error: &ConnectError) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flag: error.flag(),
            detail: error.to_string(),
        }
    }

    pub(crate) fn status(status: StatusCode) -> Self {
        let detail = format!("the backend answered {} to the last attempt", status.as_u16());
        Self { status, flag: ResponseFlag::NoHealthyUpstream, detail }
    }

    pub(crate) fn reset(error: &hyper::Error) -> Self {
        let (status, flag) = if error.is_parse() {
            (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamProtocol)
        } else {
            // As Envoy answers; the Gateway API suite takes no 502 here.
            (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::UpstreamReset)
        };
        Self { status, flag, detail: format!("the upstream ended without an answer: {error}") }
    }

    /// The client's own request ended or broke while it was sent on.
    pub(crate) fn broken_request() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            flag: ResponseFlag::Malformed,
            detail: "the body of the request broke off or is framed wrongly".into(),
        }
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            flag: ResponseFlag::UpstreamTimeout,
            detail: format!("no answer within {} ms", limit.as_millis()),
        }
    }
}
