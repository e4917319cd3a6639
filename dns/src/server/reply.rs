//! An answer as a message of the right size.

use hickory_proto::op::{Edns, Metadata, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::server::EDNS_PAYLOAD_BYTES;

/// How a query came, which bounds how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// The content of an answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

/// An encoded answer.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) truncated: bool,
}

impl Reply {
    /// An answer without records.
    pub(crate) fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    /// Encodes the answer to a request.
    ///
    /// What does not fit goes in this order: the additional records, whose absence is no
    /// truncation; then the last answers, with TC set over UDP. Over TCP nothing larger
    /// can be asked for, so TC would only make clients give up.
    ///
    /// Returns `None` when the codec fails, which a caller turns into SERVFAIL.
    pub(crate) fn encode(&self, request: &Request, transport: Transport) -> Option<Encoded> {
        let edns = request.edns.as_ref().map(edns_of_reply);
        let limit = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => request.max_payload().min(EDNS_PAYLOAD_BYTES),
        };
        let whole = Part { answers: self.answers.len(), additionals: true, cut: false };
        let (bytes, fit) = self.emit(request, edns.as_ref(), whole, limit)?;
        if fit.whole {
            return Some(Encoded { bytes, truncated: false });
        }
        let lean = Part { additionals: false, ..whole };
        let (bytes, fit) = self.emit(request, edns.as_ref(), lean, limit)?;
        if fit.whole {
            return Some(Encoded { bytes, truncated: false });
        }
        // OPT comes last in a message, so room is kept for it while counting.
        let room = limit.saturating_sub(OPT_BYTES);
        let (_, fit) = self.emit(request, None, lean, room)?;
        let truncated = transport == Transport::Udp;
        let part = Part { answers: fit.answers, additionals: false, cut: truncated };
        let (bytes, _) = self.emit(request, edns.as_ref(), part, limit)?;
        Some(Encoded { bytes, truncated })
    }

    fn emit(
        &self,
        request: &Request,
        edns: Option<&Edns>,
        part: Part,
        limit: u16,
    ) -> Option<(Vec<u8>, Fit)> {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = self.code;
        metadata.authoritative = self.authoritative;
        metadata.recursion_available = self.recursion_available;
        metadata.truncation = part.cut;
        let additionals: &[Record] = if part.additionals { &self.additionals } else { &[] };
        let whole = part.answers == self.answers.len();
        let authorities: &[Record] = if whole { &self.authorities } else { &[] };
        let response = MessageResponseBuilder::new(&request.queries, edns).build(
            metadata,
            self.answers.iter().take(part.answers),
            authorities,
            [],
            additionals,
        );
        let mut bytes = Vec::with_capacity(FIRST_CAPACITY_BYTES);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit);
        let info = response.destructive_emit(&mut encoder).ok()?;
        let answers = usize::from(info.counts().answers);
        Some((bytes, Fit { whole: part.cut || !info.truncation, answers }))
    }
}

#[derive(Debug, Clone, Copy)]
struct Part {
    answers: usize,
    additionals: bool,
    cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Fit {
    whole: bool,
    answers: usize,
}

/// Our OPT: our own size and version, and the client's DO bit repeated.
///
/// Spec: RFC 6891 section 6.1.1, RFC 3225 section 3.
fn edns_of_reply(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_PAYLOAD_BYTES).set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

/// An OPT record without options.
const OPT_BYTES: u16 = 11;
const FIRST_CAPACITY_BYTES: usize = 512;
