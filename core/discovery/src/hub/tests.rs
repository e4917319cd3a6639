//! Sessions inside the process, driven message by message.

use std::time::Duration;

use super::*;
use crate::message::{LinkReport, Nonce};
use crate::testing::{bundle, hello, label, node, resources};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens in time")
}

async fn open(publisher: &Publisher, name: &str, role: NodeRole) -> InProcess {
    let node = node(name, role);
    let port = publisher.handle().subscribe_in_process(node.clone()).await.unwrap();
    port.outgoing.send(ClientMessage::Hello(Box::new(hello(&node)))).await.unwrap();
    port
}

fn publish(publisher: &Publisher, generation: u64) {
    let all = resources([bundle("a.test", generation), bundle("b.test", 1)]);
    publisher.handle().publish(Generation(generation), all).unwrap();
}

async fn next(port: &mut InProcess) -> Delta {
    within(port.incoming.recv()).await.unwrap().unwrap()
}

async fn answer(port: &InProcess, message: ClientMessage) {
    port.outgoing.send(message).await.unwrap();
}

/// Takes and acknowledges deltas up to a generation.
async fn follow(port: &mut InProcess, generation: u64) {
    loop {
        let delta = next(port).await;
        answer(port, ClientMessage::Ack(delta.nonce)).await;
        if delta.position.generation == Generation(generation) {
            return;
        }
    }
}

#[tokio::test]
async fn a_proxy_that_never_answers_delays_nobody_and_is_sent_one_delta() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1);
    let mut slow = open(&publisher, "slow", NodeRole::Ingress).await;
    let mut quick = open(&publisher, "quick", NodeRole::Ingress).await;
    let first = next(&mut slow).await;
    for generation in 2..50 {
        publish(&publisher, generation);
        follow(&mut quick, generation).await;
    }
    assert!(slow.incoming.try_recv().is_err());
    answer(&slow, ClientMessage::Ack(first.nonce)).await;
    let second = next(&mut slow).await;
    assert_eq!(second.position.generation, Generation(49));
    assert_eq!(second.upserts.len(), 1);
}

#[tokio::test]
async fn nothing_is_served_before_the_first_state() {
    let publisher = Publisher::start(Epoch(1));
    let mut port = open(&publisher, "n", NodeRole::Ingress).await;
    while publisher.handle().subscribers().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(port.incoming.try_recv().is_err());
    publish(&publisher, 1);
    assert_eq!(next(&mut port).await.upserts.len(), 2);
}

#[tokio::test]
async fn a_refusal_is_reported_by_name_until_it_is_over() {
    let publisher = Publisher::start(Epoch(1));
    let mut reports = publisher.handle().reports();
    publish(&publisher, 1);
    let mut port = open(&publisher, "n", NodeRole::Ingress).await;
    let delta = next(&mut port).await;
    let bad = Rejection::named("TrustBundle", "a.test", &"cannot be read");
    answer(&port, ClientMessage::Nack(delta.nonce, vec![bad.clone()])).await;
    let report = within(reports.recv()).await.unwrap();
    assert_eq!((report.node.as_str(), report.connected), ("n", true));
    assert_eq!(report.nacks, std::slice::from_ref(&bad));
    let status = publisher.handle().subscribers().await;
    assert_eq!(status[0].nacks, [bad]);
    assert_eq!(status[0].generation, Some(Generation(1)));
    publish(&publisher, 2);
    follow(&mut port, 2).await;
    assert!(within(reports.recv()).await.unwrap().nacks.is_empty());
}

#[tokio::test]
async fn a_gateway_that_is_back_on_another_stream_has_not_gone() {
    let publisher = Publisher::start(Epoch(1));
    let mut reports = publisher.handle().reports();
    publish(&publisher, 1);
    let link = LinkReport {
        cluster: isthmus_model::ClusterId::new("east").unwrap(),
        transport: None,
        rtt_micros: None,
        loss_permille: 0,
    };
    let old = open(&publisher, "edge", NodeRole::EastWest).await;
    answer(&old, ClientMessage::Report(vec![link.clone()])).await;
    assert_eq!(within(reports.recv()).await.unwrap().links, [link]);
    let new = open(&publisher, "edge", NodeRole::EastWest).await;
    while publisher.handle().subscribers().await.len() < 2 {
        tokio::task::yield_now().await;
    }
    drop(old);
    while publisher.handle().subscribers().await.len() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(reports.try_recv().is_err());
    drop(new);
    let report = within(reports.recv()).await.unwrap();
    assert!(!report.connected && report.links.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_proof_of_its_peer() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1);
    let domain = isthmus_model::TrustDomain::new("c1.test").unwrap();
    let (namespace, account) = (label("isthmus-system"), label("isthmus-ingress"));
    let identity = isthmus_model::SpiffeId::workload(&domain, &namespace, &account);
    let until = Some(isthmus_runtime::clock::now() + HOUR);
    let authority = Authority::Peer { identity, own: domain, until };
    let (messages, incoming) = mpsc::channel(MESSAGES_QUEUED);
    let (outgoing, deltas) = mpsc::channel(session::DELTAS_QUEUED);
    let incoming = Box::pin(ReceiverStream::new(incoming).map(Ok));
    publisher.handle().attach(authority, incoming, outgoing).await.unwrap();
    let mut port = InProcess { outgoing: messages, incoming: deltas };
    let opening = hello(&node("n", NodeRole::Ingress));
    answer(&port, ClientMessage::Hello(Box::new(opening))).await;
    let began = tokio::time::Instant::now();
    follow(&mut port, 1).await;
    publish(&publisher, 2);
    follow(&mut port, 2).await;
    // Time goes on by itself as soon as nothing else is left to do.
    let outcome = port.incoming.recv().await.unwrap();
    assert_eq!(outcome.map(|_| ()), Err(SessionError::Expired));
    assert!(began.elapsed().abs_diff(HOUR) < Duration::from_secs(60));
    publish(&publisher, 3);
    assert!(port.incoming.recv().await.is_none());
}

#[tokio::test]
async fn links_are_reported_by_gateways_between_clusters_alone() {
    let publisher = Publisher::start(Epoch(1));
    let mut reports = publisher.handle().reports();
    publish(&publisher, 1);
    let link = LinkReport {
        cluster: isthmus_model::ClusterId::new("east").unwrap(),
        transport: None,
        rtt_micros: None,
        loss_permille: 0,
    };
    let mut other = open(&publisher, "n", NodeRole::Ingress).await;
    answer(&other, ClientMessage::Report(vec![link])).await;
    let delta = next(&mut other).await;
    // A refusal comes after the report, and its own report shows what became of that.
    let bad = Rejection::named("TrustBundle", "a.test", &"cannot be read");
    answer(&other, ClientMessage::Nack(delta.nonce, vec![bad])).await;
    let report = within(reports.recv()).await.unwrap();
    assert_eq!((report.nacks.len(), report.links.len()), (1, 0));
}

#[tokio::test]
async fn a_breach_of_the_protocol_ends_the_stream_with_its_reason() {
    let publisher = Publisher::start(Epoch(1));
    publish(&publisher, 1);
    let node = node("n", NodeRole::Ingress);
    let mut silent = publisher.handle().subscribe_in_process(node).await.unwrap();
    answer(&silent, ClientMessage::Ack(Nonce(1))).await;
    let outcome = within(silent.incoming.recv()).await.unwrap();
    assert_eq!(outcome.map(|_| ()), Err(SessionError::NoHello));
    let mut wrong = open(&publisher, "n", NodeRole::Ingress).await;
    next(&mut wrong).await;
    answer(&wrong, ClientMessage::Ack(Nonce(77))).await;
    let outcome = within(wrong.incoming.recv()).await.unwrap();
    assert!(matches!(outcome, Err(SessionError::Subscription(_))));
    assert!(within(wrong.incoming.recv()).await.is_none());
}

const HOUR: Duration = Duration::from_secs(3600);
