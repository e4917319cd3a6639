//! Readiness: a process takes traffic once its first configuration is in use.
//!
//! A role whose controller does not answer and that has no state on disk stays not ready
//! and never serves with an empty configuration as if that were meant.

use std::sync::Arc;

use isthmus_discovery::DiscoveryClient;
use isthmus_gateway::FrontStatus;
use isthmus_model::Generation;
use isthmus_runtime::Stop;
use isthmus_telemetry::Readiness;
use tokio::sync::watch;

/// Sets readiness off at once, and on when the returned future has seen that a role has
/// its first configuration, the listeners in it included.
pub(crate) fn follow(
    readiness: &Readiness,
    role: &str,
    client: Arc<DiscoveryClient>,
    mut fronts: Option<watch::Receiver<Vec<FrontStatus>>>,
    mut stop: Stop,
) -> impl Future<Output = ()> + Send + use<> {
    let condition = format!("configuration of {role}");
    readiness.set_waiting(&condition, "the controller has not answered");
    let readiness = readiness.clone();
    async move {
        let snapshots = client.snapshots();
        let mut changed = snapshots.watch();
        loop {
            let snapshot = snapshots.load();
            let bound = fronts.as_mut().map(|fronts| count_bound(&fronts.borrow_and_update()));
            let listens = bound.is_none_or(|count| count == snapshot.fronts().count());
            if snapshot.generation > Generation(0) && listens {
                return readiness.set_ready(&condition);
            }
            tokio::select! {
                () = stop.draining() => return,
                outcome = changed.changed() => if outcome.is_err() { return },
                () = reported(&mut fronts) => {}
            }
        }
    }
}

/// Waits for a change of the listeners; for ever when there are none to wait for.
async fn reported(fronts: &mut Option<watch::Receiver<Vec<FrontStatus>>>) {
    if let Some(fronts) = fronts
        && fronts.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Listeners that really listen.
fn count_bound(fronts: &[FrontStatus]) -> usize {
    fronts.iter().filter(|front| front.error.is_none()).count()
}
