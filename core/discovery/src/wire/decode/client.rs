//! What clients say. A hello comes in pieces, since a proxy may hold a whole state.

use std::collections::BTreeMap;

use isthmus_model::{ClusterId, Generation, Label, LinkTransport, ResourceKey, ResourceKind};

use super::{RESOURCES_MAX, WireError, limit, named, services, version};
use crate::message::{
    ClientMessage, Epoch, Hello, LinkReport, Nonce, Position, REASON_CHARS_MAX, Rejection,
};
use crate::node::{NODE_NAME_BYTES_MAX, NodeIdentity, NodeRole, WorkloadName};
use crate::publisher::subscription::NAMES_MAX;
use crate::wire::PROTOCOL;
use crate::wire::proto::{self, client_message};

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

/// Bytes of names in one hello, so that a stream costs the controller little.
const HELLO_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Rejections in one answer; a delta with more is refused as a whole.
pub(crate) const REJECTIONS_MAX: usize = 4096;

/// Links in one report.
const LINKS_MAX: usize = 256;
