//! Finds out that a peer is gone although its connection looks alive.

use h2::{Ping, PingPong};

use crate::tunnel::settings::Keepalive;

/// Sends PINGs and resolves when one was not answered in time.
///
/// An error of the connection itself never resolves it: whoever polls the connection
/// sees that error at the same moment and knows more about it.
pub(crate) async fn peer_silent(pings: Option<PingPong>, keepalive: Keepalive) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(keepalive.interval).await;
        match tokio::time::timeout(keepalive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
