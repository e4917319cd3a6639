//! Deltas, answers and collapse, without any stream.

use isthmus_model::Resource;

use super::*;
use crate::message::{Epoch, Position};
use crate::node::NodeRole;
use crate::testing::{
    bundle, certificate, endpoints, hello, key, listener, node, resources, service,
};

fn state(former: Option<&State>, generation: u64, all: Vec<Resource>) -> State {
    State::next(former, Epoch(1), Generation(generation), &resources(all)).0
}

fn subscription(role: NodeRole) -> Subscription {
    let node = node("n", role);
    Subscription::new(node.clone(), hello(&node)).unwrap()
}

fn now() -> Instant {
    isthmus_runtime::clock::now()
}

/// `+` for what is sent, `-` for what is removed, `?` and `!` for absent and present.
fn shape(delta: &Delta) -> Vec<String> {
    let short = |name: &str| name.replace(".shop.svc.cluster.local", "");
    let mut shape = Vec::new();
    for upsert in &delta.upserts {
        shape.push(format!("+{}", short(&upsert.key().to_string())));
    }
    shape.extend(delta.removals.iter().map(|key| format!("-{}", short(&key.to_string()))));
    shape.extend(delta.present.iter().map(|name| format!("!{}", name.name)));
    shape.extend(delta.absent.iter().map(|name| format!("?{}", name.name)));
    shape
}

fn ack(subscription: &mut Subscription, delta: &Delta) {
    subscription.handle(ClientMessage::Ack(delta.nonce)).unwrap();
}

#[test]
fn the_first_delta_is_sent_even_if_it_is_empty() {
    let mut subscription = subscription(NodeRole::Ingress);
    let state = state(None, 1, vec![]);
    let delta = subscription.poll_delta(now(), &state).unwrap();
    assert!(shape(&delta).is_empty());
    assert_eq!(subscription.synced(), None);
    ack(&mut subscription, &delta);
    assert_eq!(subscription.synced(), Some(Generation(1)));
    assert!(subscription.poll_delta(now(), &state).is_none());
}

#[test]
fn only_the_difference_is_sent() {
    let mut subscription = subscription(NodeRole::Ingress);
    let one = state(None, 1, vec![service("a", "10.0.0.1"), service("b", "10.0.0.2")]);
    let delta = subscription.poll_delta(now(), &one).unwrap();
    assert_eq!(shape(&delta), ["+Service a", "+Service b"]);
    ack(&mut subscription, &delta);
    let all = vec![service("b", "10.0.0.9"), service("c", "10.0.0.3")];
    let two = state(Some(&one), 2, all);
    let delta = subscription.poll_delta(now(), &two).unwrap();
    assert_eq!(shape(&delta), ["+Service b", "+Service c", "-Service a"]);
    ack(&mut subscription, &delta);
    // A generation that changes nothing here is not sent, and counts as in use.
    let three = state(Some(&two), 3, vec![service("b", "10.0.0.9"), service("c", "10.0.0.3")]);
    assert!(subscription.poll_delta(now(), &three).is_none());
    assert_eq!(subscription.synced(), Some(Generation(3)));
}

#[test]
fn a_slow_subscriber_gets_the_latest_state_and_nothing_between() {
    let mut subscription = subscription(NodeRole::Ingress);
    let mut latest = state(None, 1, vec![bundle("a.test", 1)]);
    let first = subscription.poll_delta(now(), &latest).unwrap();
    for generation in 2..100 {
        latest = state(Some(&latest), generation, vec![bundle("a.test", generation)]);
        assert!(subscription.poll_delta(now(), &latest).is_none());
    }
    ack(&mut subscription, &first);
    let second = subscription.poll_delta(now(), &latest).unwrap();
    assert_eq!(second.position.generation, Generation(99));
    assert_eq!(shape(&second), ["+TrustBundle a.test"]);
    ack(&mut subscription, &second);
    assert!(subscription.poll_delta(now(), &latest).is_none());
}

#[test]
fn a_refused_resource_is_not_sent_again_until_it_changes() {
    let mut subscription = subscription(NodeRole::Ingress);
    let one = state(None, 1, vec![bundle("a.test", 1), bundle("b.test", 1)]);
    let delta = subscription.poll_delta(now(), &one).unwrap();
    let refused = Rejection::named("TrustBundle", "a.test", &"cannot be read");
    let unsent = Rejection::named("TrustBundle", "z.test", &"was never sent");
    let nack = ClientMessage::Nack(delta.nonce, vec![refused.clone(), unsent]);
    subscription.handle(nack).unwrap();
    assert_eq!(subscription.rejections(), [refused]);
    // The other resource is in use, and the refused version stays unsent.
    let two = state(Some(&one), 2, vec![bundle("a.test", 1), bundle("b.test", 2)]);
    let delta = subscription.poll_delta(now(), &two).unwrap();
    assert_eq!(shape(&delta), ["+TrustBundle b.test"]);
    ack(&mut subscription, &delta);
    let three = state(Some(&two), 3, vec![bundle("a.test", 3), bundle("b.test", 2)]);
    let delta = subscription.poll_delta(now(), &three).unwrap();
    assert_eq!(shape(&delta), ["+TrustBundle a.test"]);
    assert!(subscription.rejections().is_empty());
    ack(&mut subscription, &delta);
    // A refusal of an update leaves the former version held, so removal is still sent.
    let four = state(Some(&three), 4, vec![bundle("a.test", 4), bundle("b.test", 2)]);
    let delta = subscription.poll_delta(now(), &four).unwrap();
    let refused = Rejection::named("TrustBundle", "a.test", &"cannot be read");
    subscription.handle(ClientMessage::Nack(delta.nonce, vec![refused])).unwrap();
    let five = state(Some(&four), 5, vec![bundle("b.test", 2)]);
    let delta = subscription.poll_delta(now(), &five).unwrap();
    assert_eq!(shape(&delta), ["-TrustBundle a.test"]);
    assert!(subscription.rejections().is_empty());
}

#[test]
fn services_come_and_go_with_the_names_asked_for() {
    let mut subscription = subscription(NodeRole::Sidecar);
    let all = vec![service("a", "10.0.0.1"), endpoints("a"), service("b", "10.0.0.2")];
    let one = state(None, 1, all);
    let delta = subscription.poll_delta(now(), &one).unwrap();
    assert!(shape(&delta).is_empty());
    // Names that come while a delta is in flight are answered after it.
    let names = vec![key("a"), key("nowhere")];
    subscription.handle(ClientMessage::Subscribe(names)).unwrap();
    assert!(subscription.poll_delta(now(), &one).is_none());
    ack(&mut subscription, &delta);
    let delta = subscription.poll_delta(now(), &one).unwrap();
    assert_eq!(shape(&delta), ["+Endpoints a", "+Service a", "!a", "?nowhere"]);
    ack(&mut subscription, &delta);
    assert!(subscription.poll_delta(now(), &one).is_none());
    // A service that goes is answered as absent, one that appears as present.
    let two = state(Some(&one), 2, vec![service("b", "10.0.0.2"), service("nowhere", "10.0.0.7")]);
    let delta = subscription.poll_delta(now(), &two).unwrap();
    let want = ["+Service nowhere", "-Endpoints a", "-Service a", "!nowhere", "?a"];
    assert_eq!(shape(&delta), want);
    ack(&mut subscription, &delta);
    let gone = ClientMessage::Unsubscribe(vec![key("nowhere"), key("never")]);
    subscription.handle(gone).unwrap();
    let delta = subscription.poll_delta(now(), &two).unwrap();
    assert_eq!(shape(&delta), ["-Service nowhere"]);
}

#[test]
fn a_name_asked_for_again_is_answered_again() {
    let mut subscription = subscription(NodeRole::Sidecar);
    let state = state(None, 1, vec![service("a", "10.0.0.1")]);
    subscription.handle(ClientMessage::Subscribe(vec![key("a")])).unwrap();
    let delta = subscription.poll_delta(now(), &state).unwrap();
    ack(&mut subscription, &delta);
    subscription.handle(ClientMessage::Subscribe(vec![key("a")])).unwrap();
    let delta = subscription.poll_delta(now(), &state).unwrap();
    assert_eq!(shape(&delta), ["!a"]);
}

#[test]
fn a_subscriber_that_comes_back_is_sent_only_the_difference() {
    let node = node("n", NodeRole::Sidecar);
    let all = vec![service("a", "10.0.0.1"), service("b", "10.0.0.2"), bundle("a.test", 1)];
    let old = state(None, 7, all);
    let mut opening = hello(&node);
    opening.position = Some(Position { epoch: Epoch(99), generation: Generation(70) });
    opening.names = vec![key("a"), key("b")];
    for name in ["a", "b"] {
        let entry = old.service(&key(name)).unwrap();
        opening.held.insert(entry.key.clone(), entry.version);
    }
    // Another controller: the epoch and the entries are new, the contents mostly not.
    let all = vec![service("a", "10.0.0.1"), service("b", "10.9.9.9"), bundle("a.test", 1)];
    let new = State::next(None, Epoch(2), Generation(1), &resources(all)).0;
    let mut subscription = Subscription::new(node, opening).unwrap();
    let delta = subscription.poll_delta(now(), &new).unwrap();
    assert_eq!(shape(&delta), ["+Service b", "+TrustBundle a.test", "!a", "!b"]);
}

#[test]
fn a_subscriber_that_does_not_answer_is_ended() {
    let mut subscription = subscription(NodeRole::Dns);
    assert_eq!(subscription.next_timeout(), None);
    let start = now();
    subscription.poll_delta(start, &state(None, 1, vec![])).unwrap();
    let deadline = subscription.next_timeout().unwrap();
    assert_eq!(deadline, start + ACK_TIMEOUT);
    let before = deadline - Duration::from_millis(1);
    assert_eq!(subscription.handle_timeout(before), Ok(()));
    assert_eq!(subscription.handle_timeout(deadline), Err(SubscriptionError::AckTimeout));
}

#[test]
fn answers_and_names_out_of_bounds_end_the_stream() {
    let unexpected = |nonce| Err(SubscriptionError::UnexpectedAnswer { nonce });
    let mut idle = subscription(NodeRole::Ingress);
    assert_eq!(idle.handle(ClientMessage::Ack(Nonce(0))), unexpected(0));
    let mut wrong = subscription(NodeRole::Ingress);
    wrong.poll_delta(now(), &state(None, 1, vec![])).unwrap();
    assert_eq!(wrong.handle(ClientMessage::Nack(Nonce(2), vec![])), unexpected(2));
    let mut twice = subscription(NodeRole::Ingress);
    let again = ClientMessage::Hello(Box::new(hello(&node("n", NodeRole::Ingress))));
    assert_eq!(twice.handle(again), Err(SubscriptionError::SecondHello));
    let mut greedy = subscription(NodeRole::Sidecar);
    let names = (0..=NAMES_MAX).map(|index| key(&format!("s{index}"))).collect();
    let outcome = greedy.handle(ClientMessage::Subscribe(names));
    assert_eq!(outcome, Err(SubscriptionError::TooManyNames));
}

#[test]
fn a_listener_that_goes_takes_its_key_along_and_one_that_moves_hands_it_over() {
    let names = |delta: &Delta| {
        let key = |name: &String| name.contains("Certificate") || name.contains("Listener");
        shape(delta).into_iter().filter(key).collect::<Vec<_>>()
    };
    let all =
        |server| vec![listener("shop/gw/main", Some(server), "shop/tls"), certificate("shop/tls")];
    let gateway = |account: &str| {
        let id = format!("spiffe://c1.test/ns/shop/sa/{account}");
        let identity = isthmus_model::SpiffeId::parse(&id).ok();
        let node = NodeIdentity { identity, ..node("n", NodeRole::Ingress) };
        Subscription::new(node.clone(), hello(&node)).unwrap()
    };
    let (mut first, mut second) = (gateway("one"), gateway("two"));
    let one = state(None, 1, all("shop/one"));
    let delta = first.poll_delta(now(), &one).unwrap();
    assert_eq!(names(&delta), ["+Certificate shop/tls", "+Listener shop/gw/main"]);
    ack(&mut first, &delta);
    let delta = second.poll_delta(now(), &one).unwrap();
    assert!(shape(&delta).is_empty());
    ack(&mut second, &delta);
    let two = state(Some(&one), 2, all("shop/two"));
    let delta = first.poll_delta(now(), &two).unwrap();
    assert_eq!(names(&delta), ["-Certificate shop/tls", "-Listener shop/gw/main"]);
    let delta = second.poll_delta(now(), &two).unwrap();
    assert_eq!(names(&delta), ["+Certificate shop/tls", "+Listener shop/gw/main"]);
    ack(&mut second, &delta);
    // The Secret stays published for nobody: without a listener nobody may see it.
    let three = state(Some(&two), 3, vec![certificate("shop/tls")]);
    let delta = second.poll_delta(now(), &three).unwrap();
    assert_eq!(names(&delta), ["-Certificate shop/tls", "-Listener shop/gw/main"]);
}

#[test]
fn claiming_to_hold_a_key_of_another_gateway_brings_its_removal_and_nothing_else() {
    let all = vec![listener("shop/gw/main", Some("shop/one"), "shop/tls"), certificate("shop/tls")];
    let state = state(None, 1, all);
    let identity = isthmus_model::SpiffeId::parse("spiffe://c1.test/ns/shop/sa/two").ok();
    let node = NodeIdentity { identity, ..node("n", NodeRole::Ingress) };
    let mut opening = hello(&node);
    let key = ResourceKey { kind: ResourceKind::Certificate, name: "shop/tls".into() };
    opening.held.insert(key, Version::of(b"guessed"));
    let mut subscription = Subscription::new(node, opening).unwrap();
    let delta = subscription.poll_delta(now(), &state).unwrap();
    assert_eq!(shape(&delta), ["-Certificate shop/tls"]);
}
