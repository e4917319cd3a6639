//! A packet is inspected as bytes before anything is decoded for it.
//!
//! The codec would make room for as many questions as the header claims and would answer
//! a malformed *response* with an error, which two servers can keep up for ever. So the
//! packet is walked first: what is not a query is dropped in silence, what is not exactly
//! one well-formed question is refused from its header alone, and only the rest reaches
//! the decoder. The walk allocates nothing and is linear.
//!
//! Spec: RFC 1035 section 4.1, RFC 9619 (one question), RFC 6891 (one OPT).

use hickory_proto::op::ResponseCode;

/// What a packet is, judged from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// A well-formed query with one question.
    Accept {
        /// Where the question ends, in bytes from the start of the packet.
        question_end: usize,
    },
    /// Not to be answered at all.
    Drop(DropReason),
    /// Answered with an error and nothing else.
    Reject(ResponseCode),
}

/// Why a packet gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It is a response: answering one makes packet loops.
    Response,
    /// It is shorter than a header, so there is no id to answer with.
    Short,
}

/// Inspects a packet from a client.
pub fn inspect(packet: &[u8]) -> Inspection {
    let Some(header) = packet.first_chunk::<HEADER_BYTES>() else {
        return Inspection::Drop(DropReason::Short);
    };
    let [_, _, flags, _, counts @ ..] = *header;
    if flags & FLAG_RESPONSE != 0 {
        return Inspection::Drop(DropReason::Response);
    }
    if flags & OPCODE_MASK != 0 {
        return Inspection::Reject(ResponseCode::NotImp);
    }
    let [q0, q1, a0, a1, n0, n1, x0, x1] = counts;
    let questions = u16::from_be_bytes([q0, q1]);
    let answers = u16::from_be_bytes([a0, a1]);
    let authorities = u16::from_be_bytes([n0, n1]);
    let additionals = u16::from_be_bytes([x0, x1]);
    //= https://www.rfc-editor.org/rfc/rfc9619#section-4
    //# A DNS message with OPCODE = 0 MUST NOT include a QDCOUNT parameter whose value is
    //# greater than 1.
    let counts_good = questions == 1
        && answers == 0
        && authorities <= AUTHORITIES_MAX
        && additionals <= ADDITIONALS_MAX;
    if !counts_good {
        return Inspection::Reject(ResponseCode::FormErr);
    }
    let Some(question_end) = skip_question(packet) else {
        return Inspection::Reject(ResponseCode::FormErr);
    };
    let mut at = question_end;
    for _ in 0..authorities + additionals {
        match skip_record(packet, at) {
            Some(next) => at = next,
            None => return Inspection::Reject(ResponseCode::FormErr),
        }
    }
    if at == packet.len() {
        Inspection::Accept { question_end }
    } else {
        Inspection::Reject(ResponseCode::FormErr)
    }
}

/// An error answer that is only a header.
///
/// Returns `None` when the packet has no header, or needs no answer.
pub(crate) fn error_header(packet: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let [id0, id1, flags, _, ..] = *packet.first_chunk::<HEADER_BYTES>()?;
    if flags & FLAG_RESPONSE != 0 {
        return None;
    }
    let mut answer = vec![0; HEADER_BYTES];
    let head = [id0, id1, FLAG_RESPONSE | flags & (OPCODE_MASK | FLAG_RECURSION), code.low()];
    for (to, from) in answer.iter_mut().zip(head) {
        *to = from;
    }
    Some(answer)
}

/// An answer without records that tells the client to ask again over TCP.
pub(crate) fn truncated(packet: &[u8], question_end: usize) -> Option<Vec<u8>> {
    let question = packet.get(HEADER_BYTES..question_end)?;
    let mut answer = error_header(packet, ResponseCode::NoError)?;
    if let Some(flags) = answer.get_mut(2) {
        *flags |= FLAG_TRUNCATED;
    }
    if let Some(count) = answer.get_mut(5) {
        *count = 1;
    }
    answer.extend_from_slice(question);
    Some(answer)
}

/// Walks the question. A pointer here could only lead back into the header, to itself or
/// forward, so every one is an error.
fn skip_question(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*packet.get(at)?);
        if length > LABEL_BYTES_MAX {
            return None;
        }
        at += 1 + length;
        if at - HEADER_BYTES > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            break;
        }
    }
    let end = at + QUESTION_TAIL_BYTES;
    (end <= packet.len()).then_some(end)
}

fn skip_record(packet: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*packet.get(at)?);
        if length & POINTER_BITS == POINTER_BITS {
            at += 2;
            break;
        }
        if length > LABEL_BYTES_MAX {
            return None;
        }
        at += 1 + length;
        if at - start > NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            break;
        }
    }
    let length = packet.get(at + 8..at + RECORD_FIXED_BYTES)?.first_chunk::<2>()?;
    let end = at + RECORD_FIXED_BYTES + usize::from(u16::from_be_bytes(*length));
    (end <= packet.len()).then_some(end)
}

/// Bytes of a message header.
pub(crate) const HEADER_BYTES: usize = 12;

const FLAG_RESPONSE: u8 = 0x80;
const OPCODE_MASK: u8 = 0x78;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION: u8 = 0x01;
const POINTER_BITS: usize = 0xc0;
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 255;
/// Type and class.
const QUESTION_TAIL_BYTES: usize = 4;
/// Type, class, TTL and length.
const RECORD_FIXED_BYTES: usize = 10;
/// The SOA record of an IXFR query, which is then refused as such.
const AUTHORITIES_MAX: u16 = 1;
/// OPT, and one for a signature.
const ADDITIONALS_MAX: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &[u8], counts: [u8; 8], tail: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0];
        packet.extend(counts);
        packet.extend(name);
        packet.extend([0, 1, 0, 1]);
        packet.extend(tail);
        packet
    }

    const ONE: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_plain_query_is_accepted_and_its_question_found() {
        let packet = query(b"\x01a\x04test\x00", ONE, b"");
        assert_eq!(inspect(&packet), Inspection::Accept { question_end: packet.len() });
    }

    #[test]
    fn hostile_names_are_form_errors() {
        let long: Vec<u8> = [b"\x3f".as_slice(), &[b'x'; 63]].concat().repeat(4);
        let many: Vec<u8> = [1, b'x'].repeat(128);
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("points to itself", vec![0xc0, 12]),
            ("points forward", vec![0xc0, 40]),
            ("points into the header", vec![0xc0, 0]),
            ("loop of two", vec![0xc0, 14, 0xc0, 12]),
            ("label type 0x40", vec![0x41, b'a', 0]),
            ("label type 0x80", vec![0x81, b'a', 0]),
            ("257 bytes", [long, vec![0]].concat()),
            ("128 labels", [many, vec![0]].concat()),
            ("label beyond the end", vec![60, b'a']),
        ];
        for (what, name) in cases {
            let packet = query(&name, ONE, b"");
            assert_eq!(inspect(&packet), Inspection::Reject(ResponseCode::FormErr), "{what}");
        }
        let most: Vec<u8> = [1, b'x'].repeat(127);
        let packet = query(&[most, vec![0]].concat(), ONE, b"");
        assert!(matches!(inspect(&packet), Inspection::Accept { .. }), "127 labels are legal");
    }

    #[test]
    fn counts_that_lie_are_form_errors() {
        let name = b"\x01a\x00";
        for counts in [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 2, 0, 0, 0, 0, 0, 0],
            [0xff, 0xff, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0xff, 0xff, 0, 0],
            [0, 1, 0, 0, 0, 0, 0xff, 0xff],
            [0, 1, 0, 0, 0, 0, 0, 1],
        ] {
            let packet = query(name, counts, b"");
            assert_eq!(inspect(&packet), Inspection::Reject(ResponseCode::FormErr), "{counts:?}");
        }
        let rubbish = query(name, ONE, b"more");
        assert_eq!(inspect(&rubbish), Inspection::Reject(ResponseCode::FormErr));
    }

    #[test]
    fn responses_and_stumps_are_dropped_and_other_opcodes_refused() {
        let mut packet = query(b"\x01a\x00", ONE, b"");
        for length in 0..HEADER_BYTES {
            assert_eq!(inspect(&packet[..length]), Inspection::Drop(DropReason::Short));
        }
        packet[2] = 0x80;
        assert_eq!(inspect(&packet), Inspection::Drop(DropReason::Response));
        packet.truncate(13);
        assert_eq!(inspect(&packet), Inspection::Drop(DropReason::Response));
        assert_eq!(error_header(&packet, ResponseCode::FormErr), None);
        for opcode in 1..16 {
            packet[2] = opcode << 3;
            assert_eq!(inspect(&packet), Inspection::Reject(ResponseCode::NotImp), "{opcode}");
            let answer = error_header(&packet, ResponseCode::NotImp).unwrap();
            assert_eq!(answer, [0xab, 0xcd, 0x80 | opcode << 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_is_survived() {
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0];
        let packet = query(b"\x01a\x04test\x00", [0, 1, 0, 0, 0, 0, 0, 1], &opt);
        assert!(matches!(inspect(&packet), Inspection::Accept { .. }));
        for length in 0..packet.len() {
            assert!(!matches!(inspect(&packet[..length]), Inspection::Accept { .. }));
        }
        for at in 0..packet.len() {
            for value in 0..=255 {
                let mut bent = packet.clone();
                bent[at] = value;
                if let Inspection::Accept { question_end } = inspect(&bent) {
                    assert!(truncated(&bent, question_end).unwrap().len() <= bent.len());
                }
            }
        }
    }
}
