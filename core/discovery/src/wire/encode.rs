//! From messages to protobuf.

use std::iter::Peekable;

use isthmus_model::{ResourceKey, ServiceKey};

use super::proto::{self, client_message, server_message};
use super::{PIECE_BYTES, PROTOCOL};
use crate::message::{ClientMessage, Delta, Hello, LinkReport, Rejection, Upsert, Version};

type Items<T> = Peekable<Box<dyn Iterator<Item = T> + Send>>;

/// The messages of one delta, made as they are asked for.
pub(crate) fn delta(delta: Delta) -> impl Iterator<Item = proto::ServerMessage> + Send {
    let Delta { position, nonce, upserts, removals, present, absent, .. } = delta;
    let items: Box<dyn Iterator<Item = DeltaItem> + Send> = Box::new(
        (removals.into_iter().map(DeltaItem::Removal))
            .chain(upserts.into_iter().map(DeltaItem::Upsert))
            .chain(present.into_iter().map(DeltaItem::Present))
            .chain(absent.into_iter().map(DeltaItem::Absent)),
    );
    let mut items = Some(items.peekable());
    std::iter::from_fn(move || {
        let rest = items.as_mut()?;
        let mut piece = proto::Delta {
            epoch: position.epoch.0,
            generation: position.generation.0,
            nonce: nonce.0,
            ..proto::Delta::default()
        };
        fill(rest, |item| item.put(&mut piece));
        piece.more = rest.peek().is_some();
        if !piece.more {
            items = None;
        }
        Some(proto::ServerMessage { message: Some(server_message::Message::Delta(piece)) })
    })
}

/// The messages of one client message; only a hello takes several.
pub(crate) fn client(message: ClientMessage) -> Box<dyn Iterator<Item = Wire> + Send> {
    let message = match message {
        ClientMessage::Hello(opening) => return Box::new(hello(*opening)),
        ClientMessage::Ack(nonce) => client_message::Message::Ack(proto::Ack { nonce: nonce.0 }),
        ClientMessage::Nack(nonce, rejections) => {
            let errors = rejections.into_iter().map(rejection).collect();
            client_message::Message::Nack(proto::Nack { nonce: nonce.0, errors })
        }
        ClientMessage::Report(links) => {
            let links = links.iter().map(link).collect();
            client_message::Message::Report(proto::Report { links })
        }
        ClientMessage::Subscribe(names) => {
            client_message::Message::Subscribe(proto::Subscribe { names: hosts(&names) })
        }
        ClientMessage::Unsubscribe(names) => {
            client_message::Message::Unsubscribe(proto::Unsubscribe { names: hosts(&names) })
        }
    };
    Box::new(std::iter::once(wrap(message)))
}

/// One protobuf message of a client.
pub(crate) type Wire = proto::ClientMessage;

fn wrap(message: client_message::Message) -> Wire {
    proto::ClientMessage { message: Some(message) }
}

fn hello(hello: Hello) -> impl Iterator<Item = Wire> + Send {
    let Hello { node, position, held, names } = hello;
    let items: Box<dyn Iterator<Item = HelloItem> + Send> = Box::new(
        (held.into_iter().map(|(key, version)| HelloItem::Held(key, version)))
            .chain(names.into_iter().map(HelloItem::Name)),
    );
    let mut items = items.peekable();
    let (namespace, service_account) = match &node.workload {
        Some(workload) => (workload.namespace.to_string(), workload.account.to_string()),
        None => Default::default(),
    };
    let first = wrap(client_message::Message::Hello(proto::Hello {
        protocol: PROTOCOL,
        node: node.name,
        role: node.role.label().into(),
        namespace,
        service_account,
        epoch: position.map(|position| position.epoch.0),
        generation: position.map_or(0, |position| position.generation.0),
        more: items.peek().is_some(),
    }));
    let rest = std::iter::from_fn(move || {
        items.peek()?;
        let mut piece = proto::Resume::default();
        fill(&mut items, |item| item.put(&mut piece));
        piece.more = items.peek().is_some();
        Some(wrap(client_message::Message::Resume(piece)))
    });
    std::iter::once(first).chain(rest)
}

/// Puts items into a piece until it is large enough; `put` returns the bytes it took.
fn fill<T>(items: &mut Items<T>, mut put: impl FnMut(T) -> usize) {
    let mut bytes = 0;
    while bytes < PIECE_BYTES {
        match items.next() {
            Some(item) => bytes += put(item) + ITEM_OVERHEAD_BYTES,
            None => return,
        }
    }
}

enum DeltaItem {
    Absent(ServiceKey),
    Present(ServiceKey),
    Removal(ResourceKey),
    Upsert(Upsert),
}

impl DeltaItem {
    fn put(self, piece: &mut proto::Delta) -> usize {
        match self {
            Self::Absent(name) => put_host(&mut piece.absent, &name),
            Self::Present(name) => put_host(&mut piece.present, &name),
            Self::Removal(key) => {
                let kind = key.kind.label().to_owned();
                let bytes = kind.len() + key.name.len();
                piece.removals.push(proto::Removal { kind, name: key.name });
                bytes
            }
            Self::Upsert(upsert) => {
                let (key, version, payload) = match upsert {
                    Upsert::Json { key, version, json } => (key, version, json),
                    Upsert::Shared(entry) => (entry.key.clone(), entry.version, entry.json.clone()),
                };
                let kind = key.kind.label().to_owned();
                let bytes = kind.len() + key.name.len() + payload.len() + Version::BYTES;
                let version = version.as_slice().to_vec().into();
                piece.upserts.push(proto::Upsert { kind, name: key.name, version, payload });
                bytes
            }
        }
    }
}

enum HelloItem {
    Held(ResourceKey, Version),
    Name(ServiceKey),
}

impl HelloItem {
    fn put(self, piece: &mut proto::Resume) -> usize {
        match self {
            Self::Held(key, version) => {
                let kind = key.kind.label().to_owned();
                let bytes = kind.len() + key.name.len() + Version::BYTES;
                let version = version.as_slice().to_vec().into();
                piece.held.push(proto::Held { kind, name: key.name, version });
                bytes
            }
            Self::Name(name) => put_host(&mut piece.names, &name),
        }
    }
}

fn put_host(hosts: &mut Vec<String>, name: &ServiceKey) -> usize {
    let host = name.host();
    let bytes = host.len();
    hosts.push(host);
    bytes
}

fn hosts(names: &[ServiceKey]) -> Vec<String> {
    names.iter().map(ServiceKey::host).collect()
}

fn rejection(rejection: Rejection) -> proto::Rejection {
    let Rejection { kind, name, reason } = rejection;
    proto::Rejection { kind, name, reason }
}

fn link(link: &LinkReport) -> proto::Link {
    proto::Link {
        cluster: link.cluster.to_string(),
        transport: link.transport.map(|transport| transport.label().to_owned()).unwrap_or_default(),
        rtt_micros: link.rtt_micros,
        loss_permille: u32::from(link.loss_permille),
    }
}

/// What tags and lengths of one item take at most.
const ITEM_OVERHEAD_BYTES: usize = 32;
