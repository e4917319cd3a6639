//! Who gets which state, and what comes back.

use super::*;
use crate::client::{Touch, Wanted};
use crate::message::LinkReport;
use crate::testing::service;

#[tokio::test]
async fn gateways_get_their_state_over_mutual_tls() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let transport = |id| grpc(&ca, Some(id), &address);
    let ingress = DiscoveryClient::start(options(NodeRole::Ingress, transport(INGRESS), None));
    let eastwest = DiscoveryClient::start(options(NodeRole::EastWest, transport(EASTWEST), None));
    publish(&publisher, 1, world());
    let snapshot = reaches(&ingress, 1).await;
    assert!(snapshot.certificate("shop/tls").is_some());
    assert_eq!(snapshot.services().len(), 3);
    let snapshot = reaches(&eastwest, 1).await;
    assert!(snapshot.certificate("shop/tls").is_none());
    assert_eq!(snapshot.policies().len(), 3);
    let mut changed = world();
    changed.push(service("new", "10.0.0.8"));
    publish(&publisher, 2, changed);
    assert!(reaches(&ingress, 2).await.service(&key("new")).is_some());
    assert_eq!(ingress.status().age, Some(Duration::ZERO));
    assert!(ingress.status().connected && !ingress.status().from_disk);
    within(async {
        loop {
            let all = publisher.handle().subscribers().await;
            let synced = |status: &crate::SubscriberStatus| {
                status.generation == Some(Generation(2)) && status.nacks.is_empty()
            };
            if all.len() == 2 && all.iter().all(synced) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_gets_what_it_asks_for_over_mutual_tls() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = grpc(&ca, Some(WEB), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::Sidecar, transport, None));
    asks_and_gets(&client).await;
}

#[tokio::test]
async fn a_sidecar_gets_what_it_asks_for_in_the_process() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let client = DiscoveryClient::start(options(NodeRole::Sidecar, transport, None));
    asks_and_gets(&client).await;
}

async fn asks_and_gets(client: &DiscoveryClient) {
    let on_demand = client.on_demand();
    assert_eq!(on_demand.touch(&key("cart")), Touch::Unknown);
    let (cart, no) = (key("cart"), key("no"));
    let both = async { tokio::join!(on_demand.want(&cart), on_demand.want(&no)) };
    let (cart, nowhere) = within(both).await;
    assert_eq!((cart, nowhere), (Wanted::Known, Wanted::Absent));
    let snapshot = client.snapshots().load();
    assert!(snapshot.service(&key("cart")).is_some());
    // What the route of the service leads to came along; what nobody asked for did not.
    assert!(snapshot.service(&key("cart-v2")).is_some());
    assert!(snapshot.service(&key("db")).is_none());
    assert_eq!(on_demand.touch(&key("cart")), Touch::Known);
    assert_eq!(on_demand.touch(&key("cart-v2")), Touch::Unknown);
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
}

#[tokio::test]
async fn an_idle_service_is_dropped_and_can_be_asked_for_again() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let transport = Transport::InProcess(publisher.handle());
    let mut options = options(NodeRole::Sidecar, transport, None);
    options.limits.idle = Duration::from_millis(100);
    let client = DiscoveryClient::start(options);
    let on_demand = client.on_demand();
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
    let snapshots = client.snapshots();
    let mut swaps = snapshots.watch();
    within(async {
        while snapshots.load().service(&key("cart")).is_some() {
            swaps.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(on_demand.touch(&key("cart")), Touch::Unknown);
    assert_eq!(within(on_demand.want(&key("cart"))).await, Wanted::Known);
}

#[tokio::test]
async fn reports_reach_the_controller_with_the_authorised_role() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let mut reports = publisher.handle().reports();
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = grpc(&ca, Some(EASTWEST), &server.local_addr().to_string());
    let client = DiscoveryClient::start(options(NodeRole::EastWest, transport, None));
    let link = LinkReport {
        cluster: isthmus_model::ClusterId::new("east").unwrap(),
        transport: Some(isthmus_model::LinkTransport::Quic),
        rtt_micros: Some(1500),
        loss_permille: 2,
    };
    client.report(vec![link.clone()]);
    let report = within(reports.recv()).await.unwrap();
    assert_eq!((report.role, report.connected), (NodeRole::EastWest, true));
    assert_eq!(report.links, [link]);
    drop(client);
    let report = within(reports.recv()).await.unwrap();
    assert!(!report.connected && report.links.is_empty());
}

#[tokio::test]
async fn published_generations_only_go_up() {
    let publisher = Publisher::start(Epoch(1));
    let handle = publisher.handle();
    publish(&publisher, 2, world());
    let published = Generation(2);
    for offered in [Generation(1), Generation(2)] {
        let want = Err(crate::PublishError::NotLater { offered, published });
        assert_eq!(handle.publish(offered, resources([])), want);
    }
    drop(publisher);
    within(async {
        while handle.publish(Generation(3), resources([])) != Err(crate::PublishError::Ended) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
