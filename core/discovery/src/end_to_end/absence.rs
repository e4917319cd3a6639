//! Serving without a controller: from memory, from disk, and what is told to callers.

use super::*;
use crate::client::{Touch, Wanted};
use crate::testing::{bundle, certificate, listener};

#[tokio::test]
async fn a_restarted_proxy_without_a_controller_serves_the_saved_state() {
    let folder = tempfile::tempdir().unwrap();
    for role in [NodeRole::Ingress, NodeRole::Sidecar] {
        let file = folder.path().join(role.label());
        let publisher = Publisher::start(Epoch(1));
        publish(&publisher, 4, world());
        let transport = Transport::InProcess(publisher.handle());
        let client = DiscoveryClient::start(options(role, transport, Some(&file)));
        reaches(&client, 4).await;
        assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Known);
        within(client.shutdown()).await;
        drop(publisher);

        let ca = Authority::new();
        let transport = grpc(&ca, Some(WEB), &nowhere().await);
        let client = DiscoveryClient::start(options(role, transport, Some(&file)));
        // At once: nothing was awaited since the start.
        let snapshot = client.snapshots().load();
        assert_eq!(snapshot.generation, Generation(4));
        assert!(snapshot.service(&key("cart")).is_some());
        assert_eq!(client.on_demand().touch(&key("cart")), Touch::Known);
        assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Known);
        let status = client.status();
        assert!(status.from_disk && !status.connected);
        assert!(status.age.is_some());
    }
}

#[tokio::test]
async fn a_damaged_state_file_means_an_empty_start_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    std::fs::write(&file, b"isthmus-state 1 00 3\n{}\n").unwrap();
    let publisher = Publisher::start(Epoch(1));
    let transport = || Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport(), Some(&file)));
    assert!(client.status().state_file_error.unwrap().contains("is damaged"));
    assert_eq!(client.snapshots().load().generation, Generation(0));
    publish(&publisher, 1, world());
    within(client.wait_for(|status| status.state_file_error.is_none())).await;
    within(client.shutdown()).await;
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport(), Some(&file)));
    assert_eq!(client.snapshots().load().generation, Generation(1));
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_does_not_stop_serving() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("missing").join("state");
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, Some(&file)));
    within(client.wait_for(|status| status.state_file_error.is_some())).await;
    publish(&publisher, 2, world());
    publish(&publisher, 3, vec![certificate("shop/tls"), listener("shop/gw", None, "shop/tls")]);
    assert!(reaches(&client, 3).await.certificate("shop/tls").is_some());
}

#[tokio::test]
async fn the_stale_state_serves_while_the_controller_is_away_and_only_the_rest_comes() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 9, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let transport = grpc(&ca, Some(INGRESS), &address);
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    reaches(&client, 9).await;
    drop((server, publisher));
    within(client.wait_for(|status| !status.connected)).await;
    assert_eq!(client.snapshots().load().generation, Generation(9));
    assert!(client.status().last_error.is_some());
    // The controller comes back with a new epoch and lower generations.
    let publisher = Publisher::start(Epoch(2));
    let mut next = world();
    next.push(bundle("west.test", 1));
    publish(&publisher, 1, next);
    let _server = serve(&ca, CONTROLLER, publisher.handle(), &address).await;
    let snapshot = reaches(&client, 1).await;
    assert_eq!(snapshot.bundles().len(), 2);
    assert_eq!(client.status().epoch, Some(Epoch(2)));
    assert_eq!(client.status().last_error, None);
}

#[tokio::test]
async fn a_controller_that_has_not_read_its_sources_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let start = |publisher: &Publisher| {
        let transport = Transport::InProcess(publisher.handle());
        DiscoveryClient::start(options(NodeRole::Ingress, transport, Some(&file)))
    };
    let client = start(&publisher);
    reaches(&client, 1).await;
    within(client.shutdown()).await;
    let unready = Publisher::start(Epoch(2));
    let client = start(&unready);
    within(async {
        while unready.handle().subscribers().await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(client.snapshots().load().services().len(), 3);
    assert!(client.status().from_disk && !client.status().connected);
    assert_eq!(unready.handle().published(), None);
}

#[tokio::test]
async fn a_caller_without_a_controller_is_told_in_time() {
    let ca = Authority::new();
    let transport = grpc(&ca, Some(WEB), &nowhere().await);
    let mut options = options(NodeRole::Sidecar, transport, None);
    options.limits.want_timeout = Duration::from_millis(20);
    let client = DiscoveryClient::start(options);
    assert_eq!(within(client.on_demand().want(&key("cart"))).await, Wanted::Timeout);
}
