//! What is applied, what is refused, and what is answered.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::message::{Epoch, Nonce};
use crate::node::NodeRole;
use crate::publisher::State;
use crate::publisher::subscription::Subscription;
use crate::testing::{bundle, certificate, key, node, resources, saved, service};

const SETTINGS: NamesSettings = NamesSettings {
    idle: Duration::from_secs(600),
    absent: Duration::from_secs(5),
    count_max: 100,
};

fn now() -> Instant {
    isthmus_runtime::clock::now()
}

fn subscriber(role: NodeRole) -> Subscriber {
    Subscriber::new(now(), node("n", role), SETTINGS, None)
}

fn delta(epoch: u64, generation: u64, upserts: Vec<Upsert>) -> Delta {
    Delta {
        position: Position { epoch: Epoch(epoch), generation: Generation(generation) },
        nonce: Nonce(generation),
        upserts,
        removals: vec![],
        unknown: vec![],
        present: vec![],
        absent: vec![],
    }
}

fn json(key: ResourceKey, json: &[u8]) -> Upsert {
    Upsert::Json { key, version: Version::of(json), json: Bytes::copy_from_slice(json) }
}

fn upsert(resource: &Resource) -> Upsert {
    json(resource.key(), &serde_json::to_vec(resource).unwrap())
}

fn keys(subscriber: &Subscriber) -> Vec<String> {
    subscriber.resources().keys().map(ToString::to_string).collect()
}

#[test]
fn one_bad_resource_is_refused_alone_and_its_last_good_version_stays() {
    let mut subscriber = subscriber(NodeRole::Ingress);
    let good = vec![upsert(&bundle("a.test", 1)), upsert(&bundle("b.test", 1))];
    let applied = subscriber.handle_delta(now(), delta(1, 1, good)).unwrap();
    assert_eq!(applied.answer, ClientMessage::Ack(Nonce(1)));
    let mut bad = delta(
        1,
        2,
        vec![
            json(bundle("a.test", 2).key(), b"{\"kind\":\"TrustBundle\",\"value\":{}}"),
            upsert(&bundle("b.test", 2)),
            json(bundle("c.test", 2).key(), &serde_json::to_vec(&bundle("d.test", 2)).unwrap()),
            json(bundle("e.test", 2).key(), b"\xff"),
            json(bundle("f.test", 2).key(), "[".repeat(100_000).as_bytes()),
        ],
    );
    bad.unknown = vec![("Wasm".into(), "shop/x".into())];
    let applied = subscriber.handle_delta(now(), bad).unwrap();
    let names: Vec<_> = applied.rejections.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["shop/x", "a.test", "c.test", "e.test", "f.test"]);
    assert_eq!(applied.answer, ClientMessage::Nack(Nonce(2), applied.rejections.clone()));
    let held = subscriber.resources();
    assert_eq!(*held[&bundle("a.test", 1).key()], bundle("a.test", 1));
    assert_eq!(*held[&bundle("b.test", 2).key()], bundle("b.test", 2));
    assert_eq!(keys(&subscriber), ["TrustBundle a.test", "TrustBundle b.test"]);
}

#[test]
fn a_resource_that_is_not_for_the_role_is_refused() {
    let mut subscriber = subscriber(NodeRole::Sidecar);
    let all = vec![upsert(&certificate("shop/tls"))];
    let applied = subscriber.handle_delta(now(), delta(1, 1, all)).unwrap();
    assert_eq!(applied.rejections.len(), 1);
    assert!(keys(&subscriber).is_empty());
}

#[test]
fn an_older_generation_of_the_epoch_is_refused_and_a_new_epoch_is_not() {
    let mut subscriber = subscriber(NodeRole::Ingress);
    let at = |epoch, generation, sequence| {
        delta(epoch, generation, vec![upsert(&bundle("a.test", sequence))])
    };
    subscriber.handle_delta(now(), at(1, 5, 5)).unwrap();
    let (held, offered) = (Generation(5), Generation(4));
    let refused = Err(SubscriberError::Rollback { held, offered });
    assert_eq!(subscriber.handle_delta(now(), at(1, 4, 4)), refused);
    assert_eq!(*subscriber.resources()[&bundle("a.test", 5).key()], bundle("a.test", 5));
    assert!(subscriber.handle_delta(now(), at(1, 5, 6)).is_ok());
    assert!(subscriber.handle_delta(now(), at(2, 1, 1)).is_ok());
    assert_eq!(*subscriber.resources()[&bundle("a.test", 1).key()], bundle("a.test", 1));
}

#[test]
fn a_saved_state_cannot_be_rolled_back_either() {
    let saved = saved();
    let epoch = saved.position.epoch.0;
    let node = node("n", NodeRole::Ingress);
    let mut subscriber = Subscriber::new(now(), node, SETTINGS, Some(saved.clone()));
    assert!(subscriber.handle_delta(now(), delta(epoch, 6, vec![])).is_err());
    assert!(subscriber.handle_delta(now(), delta(epoch, 7, vec![])).is_ok());
    assert_eq!(subscriber.to_saved(), Some(saved));
}

#[test]
fn a_delta_with_countless_bad_resources_is_refused_as_a_whole() {
    let mut subscriber = subscriber(NodeRole::Ingress);
    let mut bad = delta(1, 1, vec![upsert(&bundle("a.test", 1))]);
    bad.unknown = vec![("Wasm".into(), "x".into()); REJECTIONS_MAX + 1];
    let outcome = subscriber.handle_delta(now(), bad);
    assert!(matches!(outcome, Err(SubscriberError::TooManyRejections { .. })));
    assert!(keys(&subscriber).is_empty());
    assert_eq!(subscriber.position(), None);
}

#[test]
fn names_are_answered_by_what_is_really_held() {
    let mut subscriber = subscriber(NodeRole::Sidecar);
    subscriber.handle_connected(now());
    for name in ["a", "broken", "nowhere"] {
        assert_eq!(subscriber.handle_want(now(), &key(name)), Want::Wait);
    }
    let mut answer = delta(1, 1, vec![upsert(&service("a", "10.0.0.1"))]);
    answer.upserts.push(json(service("broken", "10.0.0.1").key(), b"{}"));
    answer.present = vec![key("a"), key("broken"), key("unasked")];
    answer.absent = vec![key("nowhere")];
    let applied = subscriber.handle_delta(now(), answer).unwrap();
    let want = [
        (key("a"), Resolved::Known),
        (key("broken"), Resolved::Absent),
        (key("nowhere"), Resolved::Absent),
    ];
    assert_eq!(applied.resolved, want);
}

#[test]
fn wildcard_roles_answer_from_what_they_hold() {
    let mut subscriber = subscriber(NodeRole::Ingress);
    let want = |subscriber: &mut Subscriber, name| subscriber.handle_want(now(), &key(name));
    assert_eq!(want(&mut subscriber, "a"), Want::Unready);
    let all = vec![upsert(&service("a", "10.0.0.1"))];
    subscriber.handle_delta(now(), delta(1, 1, all)).unwrap();
    assert_eq!(want(&mut subscriber, "a"), Want::Resolved(Resolved::Known));
    assert_eq!(want(&mut subscriber, "b"), Want::Resolved(Resolved::Absent));
    assert!(subscriber.poll_names().is_empty());
}

/// Both machines against each other, with random states, names and breaks of the stream.
#[test]
fn both_sides_agree_after_any_sequence() {
    for seed in 0..50_u64 {
        run_random(seed);
    }
}

fn run_random(seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut pick = |count: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % count
    };
    let node = node("n", NodeRole::Sidecar);
    let mut subscriber = Subscriber::new(now(), node.clone(), SETTINGS, None);
    let mut state = State::next(None, Epoch(1), Generation(1), &resources([])).0;
    let ClientMessage::Hello(opening) = subscriber.handle_connected(now()) else { panic!() };
    let mut subscription = Subscription::new(node.clone(), *opening).unwrap();
    let mut wanted = std::collections::BTreeSet::new();
    for step in 2..60 {
        match pick(4) {
            0 => {
                let all = (0..6).filter(|_| pick(2) == 0).collect::<Vec<_>>();
                let all = all
                    .into_iter()
                    .map(|i| service(&format!("s{i}"), &format!("10.0.0.{}", 1 + pick(3))));
                let mut all: Vec<_> = all.collect();
                all.push(bundle("a.test", pick(3)));
                let all = resources(all);
                state = State::next(Some(&state), Epoch(1), Generation(step), &all).0;
            }
            1 => {
                let name = key(&format!("s{}", pick(6)));
                subscriber.handle_want(now(), &name);
                wanted.insert(name);
            }
            2 => {
                // The stream breaks, perhaps with a delta in flight.
                subscription.poll_delta(now(), &state);
                subscriber.handle_disconnected();
                let hello = subscriber.handle_connected(now());
                let ClientMessage::Hello(opening) = hello else { panic!() };
                subscription = Subscription::new(node.clone(), *opening).unwrap();
            }
            _ => {}
        }
        for message in subscriber.poll_names() {
            subscription.handle(message).unwrap();
        }
        if let Some(delta) = subscription.poll_delta(now(), &state) {
            let applied = subscriber.handle_delta(now(), delta).unwrap();
            subscription.handle(applied.answer).unwrap();
        }
    }
    while let Some(delta) = subscription.poll_delta(now(), &state) {
        let applied = subscriber.handle_delta(now(), delta).unwrap();
        subscription.handle(applied.answer).unwrap();
    }
    let visible = crate::publisher::visibility::visible(&node, &state, wanted.iter());
    let want: Vec<_> = visible.values().map(|entry| Arc::clone(&entry.resource)).collect();
    let got: Vec<_> = subscriber.resources().into_values().collect();
    assert_eq!(got, want, "seed {seed}");
}
