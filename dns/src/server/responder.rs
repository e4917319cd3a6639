//! From a packet to the bytes of its answer, or to a question that must be forwarded.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use isthmus_runtime::SnapshotCell;

use crate::answer::{Answer, Question, ZoneKind, answer};
use crate::forward::{Forwarder, Lookup};
use crate::metrics::{Count, Metrics};
use crate::server::reply::{Reply, Transport};
use crate::wire::{DropReason, Inspection, error_header, inspect};
use crate::zone::ZoneData;

/// What is to be done about one packet.
#[derive(Debug)]
pub(super) enum Step {
    Forward(Box<Pending>),
    Send(Vec<u8>),
    Silent,
}

/// A question whose answer is elsewhere.
#[derive(Debug)]
pub(super) struct Pending {
    request: Request,
    transport: Transport,
    lookup: Lookup,
    /// What is known already: an alias of ours that leads to the question.
    reply: Reply,
}

/// Answers queries; shared by all sockets of a server.
#[derive(Debug)]
pub(super) struct Responder {
    zone: SnapshotCell<ZoneData>,
    forwarder: Option<Arc<Forwarder>>,
    metrics: Arc<Metrics>,
}

impl Responder {
    pub(super) fn new(
        zone: SnapshotCell<ZoneData>,
        forwarder: Option<Arc<Forwarder>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { zone, forwarder, metrics }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers from what this cluster knows, or says what must be asked elsewhere.
    pub(super) fn step(&self, packet: &[u8], source: SocketAddr, transport: Transport) -> Step {
        self.metrics.add(match transport {
            Transport::Tcp => Count::QueriesTcp,
            Transport::Udp => Count::QueriesUdp,
        });
        match inspect(packet) {
            Inspection::Accept { .. } => {}
            Inspection::Drop(reason) => {
                self.metrics.add(match reason {
                    DropReason::Response => Count::DroppedResponse,
                    DropReason::Short => Count::DroppedShort,
                });
                return Step::Silent;
            }
            Inspection::Reject(code) => return self.reject(packet, code),
        }
        let protocol = match transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        // The codec reads hostile bytes on the socket's own task: should it ever panic,
        // one packet is lost and not the socket.
        let guarded =
            AssertUnwindSafe(|| match Request::from_bytes(packet.to_vec(), source, protocol) {
                Ok(request) => self.respond(request, transport),
                Err(_) => self.reject(packet, ResponseCode::FormErr),
            });
        catch_unwind(guarded).unwrap_or_else(|_| {
            self.metrics.add(Count::DroppedPanic);
            Step::Silent
        })
    }

    fn respond(&self, request: Request, transport: Transport) -> Step {
        //= https://www.rfc-editor.org/rfc/rfc6891#section-6.1.3
        //# If a responder does not implement the VERSION level of the request, then it
        //# MUST respond with RCODE=BADVERS.
        if request.version() != 0 {
            return self.send(&request, transport, &Reply::error(ResponseCode::BADVERS));
        }
        let Some(query) = request.queries.queries().first().map(|query| query.original()) else {
            return self.send(&request, transport, &Reply::error(ResponseCode::FormErr));
        };
        let question = Question {
            name: query.name(),
            kind: query.query_type(),
            class: query.query_class(),
            salt: request.metadata.id,
        };
        self.metrics.add_zone(ZoneKind::of(question.name));
        // One pinned value for the whole question, whatever is published meanwhile.
        let zone = self.zone.load();
        let mut reply = Reply {
            authoritative: true,
            recursion_available: self.forwarder.is_some(),
            ..Reply::default()
        };
        match answer(&question, &zone) {
            Answer::Records { answers, additionals } => {
                reply.answers = answers;
                reply.additionals = additionals;
                if let Some(lookup) = self.lookup_of_alias(&request, &question, &reply) {
                    return Step::Forward(Box::new(Pending { request, transport, lookup, reply }));
                }
            }
            Answer::NoData { soa } => reply.authorities = vec![*soa],
            Answer::NxDomain { soa } => {
                reply.code = ResponseCode::NXDomain;
                reply.authorities = vec![*soa];
            }
            Answer::NotImplemented => reply = Reply::error(ResponseCode::NotImp),
            Answer::Refused => reply = Reply::error(ResponseCode::Refused),
            Answer::NotOurs => {
                // Without RD the client asks what we know ourselves, which is nothing.
                if self.forwarder.is_none() || !request.metadata.recursion_desired {
                    return self.send(&request, transport, &Reply::error(ResponseCode::Refused));
                }
                reply.authoritative = false;
                let lookup = lookup(&request, Lookup::new(question.name, question.kind));
                return Step::Forward(Box::new(Pending { request, transport, lookup, reply }));
            }
        }
        self.send(&request, transport, &reply)
    }

    /// An alias that leads out of our zones is followed for the client: a stub resolver
    /// cannot do it.
    fn lookup_of_alias(
        &self,
        request: &Request,
        question: &Question<'_>,
        reply: &Reply,
    ) -> Option<Lookup> {
        self.forwarder.as_ref()?;
        let wanted = matches!(question.kind, RecordType::A | RecordType::AAAA);
        if let Some(RData::CNAME(target)) = reply.answers.last().map(|record| &record.data)
            && wanted
            && request.metadata.recursion_desired
            && !ZoneKind::of(&target.0).is_ours()
        {
            return Some(lookup(request, Lookup::new(&target.0, question.kind)));
        }
        None
    }

    /// Asks elsewhere and encodes the answer.
    pub(super) async fn finish(&self, pending: Pending) -> Vec<u8> {
        let Pending { request, transport, lookup, mut reply } = pending;
        let outcome = match &self.forwarder {
            Some(forwarder) => forwarder.lookup(&lookup).await.ok(),
            None => None,
        };
        match outcome {
            Some(resolved) => {
                reply.code = resolved.code;
                reply.answers.extend(resolved.answers);
                reply.authorities = resolved.authorities;
            }
            None => {
                reply = Reply { recursion_available: true, ..Reply::error(ResponseCode::ServFail) }
            }
        }
        self.encode(&request, transport, &reply)
    }

    /// What a client gets when too much is in flight.
    pub(super) fn overloaded(&self, pending: &Pending) -> Vec<u8> {
        self.metrics.add(Count::DroppedOverload);
        self.encode(&pending.request, pending.transport, &Reply::error(ResponseCode::ServFail))
    }

    fn reject(&self, packet: &[u8], code: ResponseCode) -> Step {
        match error_header(packet, code) {
            Some(bytes) => {
                self.metrics.add_code(code);
                Step::Send(bytes)
            }
            None => Step::Silent,
        }
    }

    fn send(&self, request: &Request, transport: Transport, reply: &Reply) -> Step {
        Step::Send(self.encode(request, transport, reply))
    }

    fn encode(&self, request: &Request, transport: Transport, reply: &Reply) -> Vec<u8> {
        if let Some(encoded) = reply.encode(request, transport) {
            self.metrics.add_code(reply.code);
            if encoded.truncated {
                self.metrics.add(Count::Truncated);
            }
            return encoded.bytes;
        }
        self.metrics.add_code(ResponseCode::ServFail);
        error_header(request.as_slice(), ResponseCode::ServFail).unwrap_or_default()
    }
}

fn lookup(request: &Request, lookup: Lookup) -> Lookup {
    let dnssec_ok = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    lookup.with_dnssec(dnssec_ok, request.metadata.checking_disabled)
}
