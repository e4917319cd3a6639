//! Messages over the wire and back, and messages that nobody honest sends.

use std::collections::BTreeMap;

use isthmus_model::{ClusterId, Generation, LinkTransport, ResourceKey, ResourceKind};

use super::delta::empty;
use super::*;
use crate::message::{
    ClientMessage, Delta, Epoch, Hello, LinkReport, Nonce, Position, Rejection, Upsert, Version,
};
use crate::node::NodeRole;
use crate::publisher::State;
use crate::publisher::subscription::Subscription;
use crate::testing::{bundle, gateways, hello, key, node, resources, service, world};
use crate::wire::encode;
use crate::wire::proto::{self, client_message, server_message};

fn pieces(messages: Vec<ClientMessage>) -> Vec<ClientMessage> {
    let mut assembler = ClientAssembler::default();
    let wire = messages.into_iter().flat_map(encode::client);
    wire.filter_map(|piece| assembler.handle(piece).unwrap()).collect()
}

#[test]
fn client_messages_survive_the_wire() {
    let mut opening = hello(&node("edge-1", NodeRole::Sidecar));
    opening.position = Some(Position { epoch: Epoch(u64::MAX), generation: Generation(9) });
    for index in 0..20_000 {
        let name = format!("{index}.{}", "x".repeat(60));
        let key = ResourceKey { kind: ResourceKind::TrustBundle, name };
        opening.held.insert(key, Version::of(&[1]));
    }
    opening.names = vec![key("a"), key("b")];
    let encoded = encode::client(ClientMessage::Hello(Box::new(opening.clone())));
    let sizes: Vec<_> = encoded.map(|piece| prost::Message::encoded_len(&piece)).collect();
    assert!(sizes.len() > 2 && sizes.iter().all(|size| *size < crate::wire::MESSAGE_BYTES_MAX));
    let link = LinkReport {
        cluster: ClusterId::new("east").unwrap(),
        transport: Some(LinkTransport::Tcp),
        rtt_micros: Some(7),
        loss_permille: 3,
    };
    let key = ResourceKey { kind: ResourceKind::Peer, name: "east".into() };
    let messages = vec![
        ClientMessage::Hello(Box::new(opening)),
        ClientMessage::Ack(Nonce(1)),
        ClientMessage::Nack(Nonce(2), vec![Rejection::new(&key, &"bad")]),
        ClientMessage::Subscribe(vec![crate::testing::key("a")]),
        ClientMessage::Unsubscribe(vec![crate::testing::key("a")]),
        ClientMessage::Report(vec![link]),
    ];
    assert_eq!(pieces(messages.clone()), messages);
}

#[test]
fn every_kind_survives_the_wire() {
    let mut held = BTreeMap::new();
    let removals: Vec<_> = ResourceKind::ALL
        .into_iter()
        .map(|kind| ResourceKey { kind, name: "shop/x".into() })
        .collect();
    held.extend(removals.iter().map(|key| (key.clone(), Version::of(b"x"))));
    let opening = Hello { held, ..hello(&node("edge-1", NodeRole::Ingress)) };
    let opening = vec![ClientMessage::Hello(Box::new(opening))];
    assert_eq!(pieces(opening.clone()), opening);
    let all = resources(gateways().into_iter().chain(world()));
    let (state, _) = State::next(None, Epoch(5), Generation(6), &all);
    let position = Position { epoch: Epoch(5), generation: Generation(6) };
    let entries = all.keys().filter_map(|key| state.entry(key)).cloned();
    let upserts = entries.map(Upsert::Shared).collect();
    let delta = Delta { upserts, removals: removals.clone(), ..empty(position, Nonce(1)) };
    let mut assembler = DeltaAssembler::default();
    let mut whole = encode::delta(delta).filter_map(|piece| assembler.handle(piece).unwrap());
    let read = whole.next().unwrap();
    assert!(whole.next().is_none() && read.unknown.is_empty());
    assert_eq!(read.removals, removals);
    assert!(read.upserts.iter().map(Upsert::key).eq(all.keys()));
    for upsert in read.upserts {
        let Upsert::Json { key, json, .. } = upsert else { unreachable!() };
        let resource: isthmus_model::Resource = serde_json::from_slice(&json).unwrap();
        assert_eq!(resource, *all[&key]);
    }
}

#[test]
fn a_large_delta_is_split_and_put_together() {
    let mut all: Vec<_> = (0..40).map(|i| service(&format!("s{i}"), "10.0.0.1")).collect();
    for index in 0..3 {
        let isthmus_model::Resource::TrustBundle(mut large) = bundle(&format!("b{index}.test"), 1)
        else {
            unreachable!()
        };
        large.jwks = "y".repeat(2 * 1024 * 1024);
        all.push(isthmus_model::Resource::TrustBundle(large));
    }
    let (state, _) = State::next(None, Epoch(5), Generation(6), &resources(all));
    let node = node("g", NodeRole::Ingress);
    let mut subscription = Subscription::new(node.clone(), hello(&node)).unwrap();
    let now = isthmus_runtime::clock::now();
    let sent = subscription.poll_delta(now, &state).unwrap();
    let count = sent.upserts.len();
    assert_eq!(count, 43);
    let mut assembler = DeltaAssembler::default();
    let mut whole = Vec::new();
    let mut messages = 0;
    for message in encode::delta(sent) {
        assert!(prost::Message::encoded_len(&message) < crate::wire::MESSAGE_BYTES_MAX);
        messages += 1;
        whole.extend(assembler.handle(message).unwrap());
    }
    assert!(messages >= 3);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].upserts.len(), count);
    assert_eq!(whole[0].position.generation, Generation(6));
}

#[test]
fn hostile_messages_are_refused() {
    use client_message::Message;
    let check = |messages: Vec<Message>, want: WireError| {
        let mut assembler = ClientAssembler::default();
        let outcome = messages
            .into_iter()
            .map(|message| assembler.handle(proto::ClientMessage { message: Some(message) }))
            .find_map(Result::err);
        assert_eq!(outcome, Some(want));
    };
    let hello = |role: &str, more| proto::Hello {
        protocol: 1,
        role: role.into(),
        more,
        ..proto::Hello::default()
    };
    check(vec![Message::Hello(proto::Hello::default())], WireError::Protocol { theirs: 0 });
    let unknown = WireError::Unknown { field: "hello.role" };
    check(vec![Message::Hello(hello("Root", false))], unknown);
    let ack = Message::Ack(proto::Ack { nonce: 1 });
    let cut = WireError::Unfinished { of: "hello" };
    check(vec![Message::Hello(hello("Dns", true)), ack], cut);
    let stray = Message::Resume(proto::Resume::default());
    check(vec![stray], WireError::Unfinished { of: "stream" });
    let names = vec!["../etc".to_owned()];
    let bad = WireError::Unknown { field: "subscribe.names" };
    check(vec![Message::Subscribe(proto::Subscribe { names })], bad);
    let names = vec!["a.b.svc.cluster.local".to_owned(); NAMES_MAX + 1];
    let (count, limit) = (NAMES_MAX + 1, NAMES_MAX);
    let many = WireError::Limit { field: "subscribe.names", count, limit };
    check(vec![Message::Subscribe(proto::Subscribe { names })], many);
    let node = proto::Hello { node: "n".repeat(254), ..hello("Dns", false) };
    let long = WireError::Limit { field: "hello.node", count: 254, limit: 253 };
    check(vec![Message::Hello(node)], long);
    let empty = ClientAssembler::default().handle(proto::ClientMessage { message: None });
    assert_eq!(empty, Err(WireError::Empty));
}

#[test]
fn a_delta_cannot_change_its_position_midway() {
    let piece = |generation, more| proto::ServerMessage {
        message: Some(server_message::Message::Delta(proto::Delta {
            generation,
            more,
            ..proto::Delta::default()
        })),
    };
    let mut assembler = DeltaAssembler::default();
    assert!(assembler.handle(piece(1, true)).unwrap().is_none());
    let outcome = assembler.handle(piece(2, false)).map(|_| ());
    assert_eq!(outcome, Err(WireError::Unfinished { of: "delta" }));
}
