//! The ports that operators and their tools use: metrics, readiness, admin.

use std::net::SocketAddr;
use std::sync::Arc;

use isthmus_certs::AuthorityHandle;
use isthmus_telemetry::{
    AdminError, AdminRoutes, ControlServer, Readiness, ServeError, Telemetry, serve_admin,
    serve_health, serve_metrics,
};
use serde_json::{Value, json};

use crate::settings::Settings;
use crate::up::board::Board;
use crate::up::explain;

/// Serves the three ports.
///
/// Roles that run as processes of their own share one settings file: the first of them gets
/// the ports of the settings, the others (`shared`) take free ones and say which.
pub(crate) fn serve(
    settings: &Arc<Settings>,
    telemetry: &Telemetry,
    readiness: &Readiness,
    board: &Arc<Board>,
    shared: bool,
) -> anyhow::Result<[ControlServer; 3]> {
    let ports = &settings.telemetry;
    let metrics = bind("metrics", ports.metrics, shared, |address| {
        serve_metrics(address, telemetry.registry())
    })?;
    let health = bind("ready", ports.ready, shared, |address| serve_health(address, readiness))?;
    let routes = routes(settings, board);
    let admin = bind("admin", ports.admin, shared, |address| serve_admin(address, &routes))?;
    Ok([metrics, health, admin])
}

fn bind(
    name: &str,
    address: SocketAddr,
    shared: bool,
    serve: impl Fn(SocketAddr) -> Result<ControlServer, ServeError>,
) -> Result<ControlServer, ServeError> {
    match serve(address) {
        Err(error) if shared => {
            let server = serve(SocketAddr::new(address.ip(), 0))?;
            let own = server.local_addr();
            tracing::warn!(port = name, %address, %own, %error, "taken; a free port is used");
            Ok(server)
        }
        outcome => outcome,
    }
}

fn routes(settings: &Arc<Settings>, board: &Arc<Board>) -> AdminRoutes {
    let routes = AdminRoutes::new();
    let (own, settings) = (Arc::clone(board), Arc::clone(settings));
    routes.get("/status", move |_| Ok(own.status(&settings)));
    let own = Arc::clone(board);
    routes.get("/explain", move |query| explain::answer(&own.viewpoints(), query));
    let own = Arc::clone(board);
    routes.post("/ca/rotate", move |_| rotate(&own));
    let own = Arc::clone(board);
    routes.get("/ca/bundle", move |_| bundle(&own));
    routes
}

fn authority(board: &Board) -> Result<AuthorityHandle, AdminError> {
    let reason = || "the authority runs in another process".to_owned();
    board.authority().ok_or_else(|| AdminError::Unavailable { reason: reason() })
}

/// The trust bundle of the authority of this process.
fn bundle(board: &Board) -> Result<Value, AdminError> {
    let jwks = authority(board)?.read(|authority| authority.bundle().to_jwks());
    Ok(json!({ "bundle": String::from_utf8_lossy(&jwks) }))
}

/// Rotates the authority of this process.
fn rotate(board: &Board) -> Result<Value, AdminError> {
    authority(board)?
        .rotate_now()
        .map(|()| json!({ "rotation": "begun" }))
        .map_err(|error| AdminError::Unavailable { reason: error.to_string() })
}
