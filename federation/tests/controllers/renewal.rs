//! Sessions are renewed with certificates, and nobody notices.

use std::sync::Arc;

use isthmus_federation::{LeaseStatus, Status};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, PATIENCE, TcpDialer, service};
use crate::imports;

/// Whether everything is as it should be at a peer.
fn is_steady(status: &Status) -> bool {
    let steady = |peer: &isthmus_federation::PeerStatus| {
        peer.lease == LeaseStatus::Valid && peer.reading && peer.writing
    };
    !status.peers.is_empty() && status.peers.iter().all(steady)
}

/// Ends with the first status that is not steady.
async fn watch_for_trouble(mut status: watch::Receiver<Arc<Status>>, import: &'static str) {
    let trouble = |status: &Arc<Status>| !is_steady(status) || !imports(status, import);
    // The controller may end first, which is the end of the test.
    let _ = status.wait_for(trouble).await;
}

#[tokio::test]
async fn imports_and_leases_stay_while_controllers_renew_their_certificates() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let b = Cluster::start("b", &dialer, "isthmus-controller").await;
    let cart = service("shop", "cart", true);
    a.apply(&format!("{}{cart}", b.link()));
    b.apply(&format!("{}{cart}", a.link()));
    let mut watches = JoinSet::new();
    for cluster in [&a, &b] {
        let both = |status: &Status| {
            is_steady(status) && status.imports.iter().any(|import| import.clusters.len() == 2)
        };
        cluster.wait_for("both clusters", both).await;
        let status = cluster.controller.as_ref().unwrap().status();
        watches.spawn(watch_for_trouble(status, "shop/cart"));
    }
    let mut dials = dialer.dials.subscribe();
    let first = *dials.borrow();
    for round in 0..ROUNDS {
        let before = *dials.borrow();
        a.renew_controller().await;
        b.renew_controller().await;
        let renewed = dials.wait_for(|count| *count >= before + 2);
        tokio::time::timeout(PATIENCE, renewed).await.unwrap().unwrap();
        // What comes now comes in the new sessions, or in the former ones to their end.
        let name = format!("new-{round}");
        a.apply(&format!("{}{cart}{}", b.link(), service("shop", &name, true)));
        let import = format!("shop/{name}");
        b.wait_for("a new import", |status| imports(status, &import)).await;
    }
    assert!(watches.try_join_next().is_none(), "a renewal was noticed");
    assert_eq!(*dials.borrow(), first + 2 * ROUNDS, "one dial for each renewal");
}

const ROUNDS: usize = 3;
