//! Who may ask and who may answer, as certificates say, and for how long.

use super::*;
use crate::testing::gateways;

#[tokio::test]
async fn a_gateway_gets_its_own_key_and_never_that_of_another() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let transport = |id| grpc(&ca, Some(id), &server.local_addr().to_string());
    publish(&publisher, 1, gateways());
    let own = DiscoveryClient::start(options(NodeRole::Ingress, transport(EDGE), None));
    let cluster = DiscoveryClient::start(options(NodeRole::Ingress, transport(INGRESS), None));
    let web = DiscoveryClient::start(options(NodeRole::Ingress, transport(WEB), None));
    for (client, keys) in [(&own, [true, false]), (&cluster, [false; 2]), (&web, [false; 2])] {
        let snapshot = reaches(client, 1).await;
        let seen = ["shop/edge", "bank/vault"].map(|name| snapshot.certificate(name).is_some());
        assert_eq!(seen, keys);
    }
    let snapshot = reaches(&own, 1).await;
    assert!(snapshot.service(&key("cart")).is_some() && snapshot.service(&key("vault")).is_none());
    // The Gateway goes, and its key with it.
    let rest = gateways().into_iter().filter(|resource| resource.key().name != "shop/edge/main");
    publish(&publisher, 2, rest.collect());
    assert!(reaches(&own, 2).await.certificate("shop/edge").is_none());
}

#[tokio::test]
async fn peers_without_the_right_identity_are_refused() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let server = serve(&ca, CONTROLLER, publisher.handle(), "127.0.0.1:0").await;
    let address = server.local_addr().to_string();
    let cases = [
        (None, NodeRole::Ingress),
        (Some(WEB), NodeRole::EastWest),
        (Some(WEB), NodeRole::Dns),
        (Some(INGRESS), NodeRole::EastWest),
        (Some("c2.test/ns/isthmus-system/sa/isthmus-ingress"), NodeRole::Ingress),
        (Some("c2.test/ns/shop/sa/web"), NodeRole::Sidecar),
    ];
    for (id, role) in cases {
        let client = DiscoveryClient::start(options(role, grpc(&ca, id, &address), None));
        within(client.wait_for(|status| status.last_error.is_some())).await;
        let status = client.status();
        assert!(!status.connected && status.generation.is_none(), "{id:?}: {status:?}");
        assert_eq!(status.age, None);
    }
    assert!(publisher.handle().subscribers().await.is_empty());
}

#[tokio::test]
async fn a_controller_of_another_identity_is_refused() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    for spoof in [WEB, "c2.test/ns/isthmus-system/sa/isthmus-controller"] {
        let server = serve(&ca, spoof, publisher.handle(), "127.0.0.1:0").await;
        let transport = grpc(&ca, Some(INGRESS), &server.local_addr().to_string());
        let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
        within(client.wait_for(|status| status.last_error.is_some())).await;
        let error = client.status().last_error.unwrap();
        assert!(error.contains("and must be"), "{error}");
        assert_eq!(client.status().generation, None);
    }
}

#[tokio::test]
async fn connections_are_bounded_and_a_silent_one_holds_only_its_own_place() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = TrustDomain::new("c1.test").unwrap();
    let mut limited =
        ServerOptions::new(ca.server(CONTROLLER), identify(), domain, publisher.handle());
    limited.connections_max = 1;
    let server = DiscoveryServer::start(listener, limited).unwrap();
    let address = server.local_addr().to_string();
    let silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    let transport = grpc(&ca, Some(INGRESS), &address);
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    within(client.wait_for(|status| status.last_error.is_some())).await;
    assert_eq!(client.status().generation, None);
    drop(silent);
    reaches(&client, 1).await;
}

#[tokio::test]
async fn one_address_cannot_take_the_places_of_others() {
    let ca = Authority::new();
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1, world());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = TrustDomain::new("c1.test").unwrap();
    let mut limited =
        ServerOptions::new(ca.server(CONTROLLER), identify(), domain, publisher.handle());
    (limited.connections_max, limited.address_connections_max) = (4, 2);
    let server = DiscoveryServer::start(listener, limited).unwrap();
    let address = server.local_addr();
    let mut silent = Vec::new();
    for _ in 0..4 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    let transport = grpc(&ca, Some(INGRESS), &address.to_string());
    let client = DiscoveryClient::start(options(NodeRole::Ingress, transport, None));
    reaches(&client, 1).await;
    // Those above the bound were closed and not kept waiting.
    for above in &mut silent[2..] {
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(above, &mut byte);
        assert!(matches!(within(read).await, Ok(0) | Err(_)));
    }
}
