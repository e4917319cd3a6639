//! From protobuf to messages, checking every name and bounding every list.

use std::collections::BTreeMap;

use isthmus_model::{
    ClusterId, Generation, InvalidName, Label, LinkTransport, ResourceKey, ResourceKind, ServiceKey,
};

use super::PROTOCOL;
use super::proto::{self, client_message, server_message};
use crate::message::{
    ClientMessage, Delta, Epoch, Hello, LinkReport, Nonce, Position, REASON_CHARS_MAX, Rejection,
    Upsert, Version,
};
use crate::node::{NODE_NAME_BYTES_MAX, NodeIdentity, NodeRole, WorkloadName};
use crate::publisher::subscription::NAMES_MAX;

/// A message that is not of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the message is empty or of a later version")]
    Empty,
    #[error("{field} has {count} entries or bytes, at most {limit} are allowed")]
    Limit { field: &'static str, count: usize, limit: usize },
    #[error("field {field} is not valid")]
    Name { field: &'static str, source: InvalidName },
    #[error("protocol version {theirs} is not spoken here, only {PROTOCOL}")]
    Protocol { theirs: u32 },
    #[error("field {field} has a value that does not exist")]
    Unknown { field: &'static str },
    #[error("a message of another kind in the middle of a {of}")]
    Unfinished { of: &'static str },
}

/// Puts the client's messages together: a hello comes with what follows it.
#[derive(Debug, Default)]
pub(crate) struct ClientAssembler {
    opening: Option<Box<Hello>>,
    /// Bytes of names in the unfinished hello.
    opening_bytes: usize,
}

impl ClientAssembler {
    /// Takes one protobuf message; returns a message once it is whole.
    pub(crate) fn handle(
        &mut self,
        message: proto::ClientMessage,
    ) -> Result<Option<ClientMessage>, WireError> {
        use client_message::Message;
        let message = message.message.ok_or(WireError::Empty)?;
        if let Some(hello) = self.opening.take() {
            let Message::Resume(piece) = message else {
                return Err(WireError::Unfinished { of: "hello" });
            };
            return self.resume(hello, piece);
        }
        Ok(Some(match message {
            Message::Ack(ack) => ClientMessage::Ack(Nonce(ack.nonce)),
            Message::Hello(opening) => {
                let more = opening.more;
                let hello = Box::new(hello(opening)?);
                if more {
                    (self.opening, self.opening_bytes) = (Some(hello), 0);
                    return Ok(None);
                }
                ClientMessage::Hello(hello)
            }
            Message::Nack(nack) => {
                limit("nack.errors", nack.errors.len(), REJECTIONS_MAX)?;
                let errors = nack.errors.into_iter().map(rejection).collect();
                ClientMessage::Nack(Nonce(nack.nonce), errors)
            }
            Message::Report(report) => {
                limit("report.links", report.links.len(), LINKS_MAX)?;
                let links: Result<_, _> = report.links.iter().map(link).collect();
                ClientMessage::Report(links?)
            }
            Message::Resume(_) => return Err(WireError::Unfinished { of: "stream" }),
            Message::Subscribe(names) => {
                ClientMessage::Subscribe(services("subscribe.names", &names.names)?)
            }
            Message::Unsubscribe(names) => {
                ClientMessage::Unsubscribe(services("unsubscribe.names", &names.names)?)
            }
        }))
    }

    fn resume(
        &mut self,
        mut hello: Box<Hello>,
        piece: proto::Resume,
    ) -> Result<Option<ClientMessage>, WireError> {
        limit("hello.held", hello.held.len() + piece.held.len(), RESOURCES_MAX)?;
        self.opening_bytes += piece.held.iter().map(|held| held.name.len()).sum::<usize>();
        limit("hello", self.opening_bytes, HELLO_BYTES_MAX)?;
        for held in piece.held {
            // A kind that this version does not know cannot be sent either: the proxy
            // drops it itself when it next starts.
            let Some(kind) = ResourceKind::from_label(&held.kind) else { continue };
            let version = version("held.version", &held.version)?;
            hello.held.insert(ResourceKey { kind, name: held.name }, version);
        }
        hello.names.extend(services("hello.names", &piece.names)?);
        limit("hello.names", hello.names.len(), NAMES_MAX)?;
        if piece.more {
            self.opening = Some(hello);
            return Ok(None);
        }
        Ok(Some(ClientMessage::Hello(hello)))
    }
}

/// Puts the pieces of a delta together.
#[derive(Debug, Default)]
pub(crate) struct DeltaAssembler {
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    delta: Delta,
    bytes: usize,
}

impl DeltaAssembler {
    /// Takes one protobuf message; returns the delta once it is whole.
    pub(crate) fn handle(
        &mut self,
        message: proto::ServerMessage,
    ) -> Result<Option<Delta>, WireError> {
        let Some(server_message::Message::Delta(piece)) = message.message else {
            return Err(WireError::Empty);
        };
        let position =
            Position { epoch: Epoch(piece.epoch), generation: Generation(piece.generation) };
        let nonce = Nonce(piece.nonce);
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => Partial { delta: empty(position, nonce), bytes: 0 },
        };
        if partial.delta.position != position || partial.delta.nonce != nonce {
            return Err(WireError::Unfinished { of: "delta" });
        }
        let more = piece.more;
        partial.add(piece)?;
        if more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial.delta))
    }
}

impl Partial {
    fn add(&mut self, piece: proto::Delta) -> Result<(), WireError> {
        let delta = &mut self.delta;
        for upsert in piece.upserts {
            self.bytes += upsert.payload.len() + upsert.name.len();
            let Some(kind) = ResourceKind::from_label(&upsert.kind) else {
                delta.unknown.push((upsert.kind, upsert.name));
                continue;
            };
            let version = version("upsert.version", &upsert.version)?;
            let key = ResourceKey { kind, name: upsert.name };
            delta.upserts.push(Upsert::Json { key, version, json: upsert.payload });
        }
        for removal in piece.removals {
            // Of a kind that this version does not know, nothing is held.
            let Some(kind) = ResourceKind::from_label(&removal.kind) else { continue };
            delta.removals.push(ResourceKey { kind, name: removal.name });
        }
        delta.present.extend(services("delta.present", &piece.present)?);
        delta.absent.extend(services("delta.absent", &piece.absent)?);
        let entries = delta.upserts.len() + delta.unknown.len();
        limit("delta.upserts", entries, RESOURCES_MAX)?;
        limit("delta.removals", delta.removals.len(), RESOURCES_MAX)?;
        limit("delta.names", delta.present.len() + delta.absent.len(), NAMES_MAX)?;
        limit("delta", self.bytes, STATE_BYTES_MAX)
    }
}

fn empty(position: Position, nonce: Nonce) -> Delta {
    Delta {
        position,
        nonce,
        upserts: Vec::new(),
        removals: Vec::new(),
        unknown: Vec::new(),
        present: Vec::new(),
        absent: Vec::new(),
    }
}

fn hello(hello: proto::Hello) -> Result<Hello, WireError> {
    if hello.protocol != PROTOCOL {
        return Err(WireError::Protocol { theirs: hello.protocol });
    }
    limit("hello.node", hello.node.len(), NODE_NAME_BYTES_MAX)?;
    let role =
        NodeRole::from_label(&hello.role).ok_or(WireError::Unknown { field: "hello.role" })?;
    let workload = match (hello.namespace.as_str(), hello.service_account.as_str()) {
        ("", "") => None,
        (namespace, account) => Some(WorkloadName {
            namespace: Label::new(namespace).map_err(named("hello.namespace"))?,
            account: Label::new(account).map_err(named("hello.service_account"))?,
        }),
    };
    let generation = Generation(hello.generation);
    let position = hello.epoch.map(|epoch| Position { epoch: Epoch(epoch), generation });
    let node = NodeIdentity { name: hello.node, role, workload, identity: None };
    Ok(Hello { node, position, held: BTreeMap::new(), names: Vec::new() })
}

fn link(link: &proto::Link) -> Result<LinkReport, WireError> {
    let transport = match link.transport.as_str() {
        "" => None,
        "quic" => Some(LinkTransport::Quic),
        "tcp" => Some(LinkTransport::Tcp),
        _ => return Err(WireError::Unknown { field: "link.transport" }),
    };
    Ok(LinkReport {
        cluster: ClusterId::new(&link.cluster).map_err(named("link.cluster"))?,
        transport,
        rtt_micros: link.rtt_micros,
        loss_permille: u16::try_from(link.loss_permille.min(1000)).unwrap_or(1000),
    })
}

fn rejection(rejection: proto::Rejection) -> Rejection {
    let reason = rejection.reason.chars().take(REASON_CHARS_MAX).collect();
    Rejection { kind: rejection.kind, name: rejection.name, reason }
}

fn services(field: &'static str, hosts: &[String]) -> Result<Vec<ServiceKey>, WireError> {
    limit(field, hosts.len(), NAMES_MAX)?;
    let read = |host: &String| ServiceKey::from_host(host).ok_or(WireError::Unknown { field });
    hosts.iter().map(read).collect()
}

fn version(field: &'static str, bytes: &[u8]) -> Result<Version, WireError> {
    Version::from_slice(bytes).ok_or(WireError::Unknown { field })
}

fn named(field: &'static str) -> impl Fn(InvalidName) -> WireError {
    move |source| WireError::Name { field, source }
}

fn limit(field: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    if count > limit { Err(WireError::Limit { field, count, limit }) } else { Ok(()) }
}

/// Resources in one state.
pub(crate) const RESOURCES_MAX: usize = 200_000;

/// Bytes of names in one hello, so that a stream costs the controller little.
const HELLO_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of JSON in one state.
pub(crate) const STATE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Rejections in one answer; a delta with more is refused as a whole.
pub(crate) const REJECTIONS_MAX: usize = 4096;

/// Links in one report.
const LINKS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rejection;
    use crate::publisher::State;
    use crate::publisher::subscription::Subscription;
    use crate::testing::{bundle, gateways, hello, key, node, resources, service, world};
    use crate::wire::encode;

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
        assert!(
            sizes.len() > 2 && sizes.iter().all(|size| *size < super::super::MESSAGE_BYTES_MAX)
        );
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
            let isthmus_model::Resource::TrustBundle(mut large) =
                bundle(&format!("b{index}.test"), 1)
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
            assert!(prost::Message::encoded_len(&message) < super::super::MESSAGE_BYTES_MAX);
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
}
