//! Whole controllers on loopback: real authorities, real TLS, real gRPC, plain TCP where
//! the gateways and the link would be.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "controllers/cluster.rs"]
mod cluster;
#[path = "controllers/renewal.rs"]
mod renewal;

use std::sync::Arc;
use std::time::Duration;

use isthmus_discovery::{Epoch, Publisher};
use isthmus_federation::{LeaseStatus, Status};
use isthmus_model::{ClusterId, Resource};
use isthmus_runtime::clock;

use cluster::{Cluster, NAMESPACE, PATIENCE, Path, TcpDialer, service};

fn imports(status: &Status, name: &str) -> bool {
    status.imports.iter().any(|import| import.name == name)
}

#[tokio::test]
async fn an_export_becomes_an_import_of_the_linked_cluster_and_goes_again() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let b = Cluster::start("b", &dialer, "isthmus-controller").await;
    let secret = service("pay", "api", true);
    a.apply(&format!("{}{}{secret}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    let status = b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    assert!(!imports(&status, "pay/api"), "what is not granted was imported");
    let valid = |status: &Status| {
        status
            .peers
            .iter()
            .all(|peer| peer.lease == LeaseStatus::Valid && peer.reading && peer.writing)
    };
    let status = b.wait_for("a valid lease", valid).await;
    assert_eq!(status.peers[0].services_imported, 1);
    assert_eq!(status.peers[0].endpoints_imported, 1);
    a.wait_for("a valid lease", valid).await;

    b.apply(&format!("{}{}", a.link(), service("shop", "cart", true)));
    let both = |status: &Status| status.imports.iter().any(|import| import.clusters.len() == 2);
    a.wait_for("both clusters", both).await;
    b.wait_for("both clusters", both).await;

    a.apply(&format!("{}{}", b.link(), service("shop", "cart", false)));
    let only_b = |status: &Status| {
        status.imports.iter().any(|import| import.clusters == [ClusterId::new("b").unwrap()])
    };
    b.wait_for("only its own export", only_b).await;
    a.wait_for("only the export of b", only_b).await;
}

#[tokio::test]
async fn a_successor_without_state_decides_nothing_before_linked_clusters_are_heard() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    b.controller.take().unwrap().shutdown().await;
    std::fs::remove_file(b.folder.path().join("federation.json")).unwrap();
    b.settle = Duration::from_secs(3600);
    b.start_controller("isthmus-controller", Path::Direct).await;
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    a.wait_for("its export", |status| !status.exports.is_empty()).await;
    let mut decided = b.controller.as_ref().unwrap().decided();
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    let first = tokio::time::timeout(PATIENCE, decided.wait_for(Option::is_some)).await;
    let first = first.expect("a decision").unwrap().clone().unwrap();
    assert_eq!(first.plan.federated.imports.len(), 1, "decided without the linked cluster");
    let is_up = |resource: &Resource| matches!(resource, Resource::Peer(peer) if peer.link.transport.is_some());
    let resources = &first.plan.resources;
    assert!(
        resources.values().any(|resource| is_up(resource)),
        "a link over which the peer is heard counts as down"
    );
}

#[tokio::test]
async fn a_removed_link_ends_sessions_at_once_and_a_returned_one_brings_them_back() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let b = Cluster::start("b", &dialer, "isthmus-controller").await;
    let cart = service("shop", "cart", true);
    a.apply(&format!("{}{cart}", b.link()));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    let began = clock::now();
    a.apply(&cart);
    let cut = |status: &Status| status.peers.iter().all(|peer| !peer.reading && !peer.writing);
    b.wait_for("the end of both sessions", cut).await;
    assert!(clock::now() - began < Duration::from_secs(5));
    b.wait_for("the end of the lease", |status| status.peers[0].lease == LeaseStatus::Expired)
        .await;
    let status = b.wait_for("the kept import", |status| imports(status, "shop/cart")).await;
    assert_eq!(status.peers[0].services_imported, 1, "the last known good state is gone");
    a.apply(&format!("{}{cart}", b.link()));
    b.wait_for("the lease again", |status| status.peers[0].lease == LeaseStatus::Valid).await;
}

#[tokio::test]
async fn only_the_controller_identity_of_a_linked_cluster_may_replicate() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    // Of the right trust domain, and still not the controller.
    let thief = Cluster::start("b", &dialer, "default").await;
    a.apply(&format!("{}{}", thief.link(), service("shop", "cart", true)));
    thief.apply(&format!("{}{NAMESPACE}", a.link()));
    let refused = |status: &Status| {
        status
            .peers
            .iter()
            .any(|peer| peer.last_error.as_ref().is_some_and(|error| error.contains("permission")))
    };
    let status = thief.wait_for("the refusal", refused).await;
    assert_eq!(status.peers[0].services_imported, 0);
    let status = a
        .wait_for("that the thief is no controller", |status| {
            status.peers.iter().any(|peer| peer.last_error.is_some())
        })
        .await;
    assert!(!status.peers[0].reading && !status.peers[0].writing);
}

#[tokio::test]
async fn a_restarted_controller_goes_on_with_its_last_known_good_state() {
    let dialer = Arc::new(TcpDialer::default());
    let a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| {
        imports(status, "shop/cart") && status.peers[0].lease == LeaseStatus::Valid
    })
    .await;
    b.controller.take().unwrap().shutdown().await;
    assert_saved(b.folder.path());
    // Nobody can be reached now, so what is there comes from the state file.
    dialer.addresses.lock().unwrap().clear();
    b.publisher = Publisher::start(Epoch::random());
    b.start_controller("isthmus-controller", Path::Direct).await;
    dialer.addresses.lock().unwrap().remove(&a.id);
    let status = b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    assert_eq!(status.peers[0].lease, LeaseStatus::Valid);
    assert!(!status.peers[0].reading);
}

#[tokio::test]
async fn controllers_meet_through_their_gateways() {
    let dialer = Arc::new(TcpDialer::default());
    let mut a = Cluster::start("a", &dialer, "isthmus-controller").await;
    let mut b = Cluster::start("b", &dialer, "isthmus-controller").await;
    for cluster in [&mut a, &mut b] {
        cluster.controller.take().unwrap().shutdown().await;
        cluster.start_controller("isthmus-controller", Path::Gateway).await;
    }
    a.apply(&format!("{}{}", b.link(), service("shop", "cart", true)));
    b.apply(&format!("{}{NAMESPACE}", a.link()));
    b.wait_for("the import", |status| imports(status, "shop/cart")).await;
    a.wait_for("the other direction", |status| status.peers[0].lease == LeaseStatus::Valid).await;
}

fn assert_saved(folder: &std::path::Path) {
    let content = std::fs::read_to_string(folder.join("federation.json")).unwrap();
    assert!(content.contains("cart"), "{content}");
    assert!(!content.contains("127.0.0.9"), "an address of a peer was saved");
}
