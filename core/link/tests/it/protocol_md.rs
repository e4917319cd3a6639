//! The examples of PROTOCOL.md are what the code writes.

use std::collections::BTreeMap;
use std::time::Duration;

use isthmus_link::proto::frame::{Frame, Hello, Role, Stats};
use isthmus_link::proto::header::{Datagram, StreamReply};
use isthmus_link::proto::version::VersionRange;
use isthmus_link::{RefuseCode, StreamRefused, TraceContext};
use isthmus_model::EndpointId;

use crate::gateway::{cluster, header};

fn frame(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let versions = VersionRange { min: 1, max: 1 };
    let hello = Hello { versions, cluster: cluster("east"), capabilities: 0 };
    let stats = Stats { rtt_us: 80_000, loss_ppm: 1500, goodput: 1_000_000, streams: 3 };
    let code = RefuseCode::NotExported;
    let refused = StreamReply::Refused(StreamRefused { code, reason: "no export".to_owned() });
    let (mut plain, mut full) = (Vec::new(), Vec::new());
    header().encode(&mut plain);
    let mut with = header();
    with.endpoint = Some(EndpointId::new("e7").unwrap());
    with.trace = Some(TraceContext { trace_id: [0xab; 16], span_id: [0xcd; 8], flags: 1 });
    with.deadline = Some(Duration::from_millis(1500));
    with.flow = Some(9);
    with.encode(&mut full);
    let reply = |reply: StreamReply| {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        bytes
    };
    let mut datagram = Vec::new();
    Datagram { flow: 9, payload: b"abc" }.encode(&mut datagram);
    let ack = Frame::HelloAck { version: 1, cluster: cluster("west"), capabilities: 0 };
    vec![
        ("hello", frame(Frame::Hello(hello))),
        ("hello-ack", frame(ack)),
        ("refuse", frame(Frame::Refuse { code: 2, reason: "old".to_owned() })),
        ("ping", frame(Frame::Ping { seq: 7, sent_at_us: 1_000_000, padding: 4 })),
        ("pong", frame(Frame::Pong { seq: 7, sent_at_us: 1_000_000 })),
        ("stats", frame(Frame::Stats(stats))),
        ("drain", frame(Frame::Drain { deadline_ms: 30_000 })),
        ("bye", frame(Frame::Bye { code: 0, reason: "drained".to_owned() })),
        ("role", frame(Frame::Role(Role::Active))),
        ("stream-header", plain),
        ("stream-header-full", full),
        ("accepted", reply(StreamReply::Accepted)),
        ("refused", reply(refused)),
        ("datagram", datagram),
    ]
}

/// The blocks of the document: a line "```hex <name>", hex digits, a line "```".
fn documented() -> BTreeMap<String, Vec<u8>> {
    let text = include_str!("../../PROTOCOL.md");
    let mut blocks = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let digits: String =
            lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("");
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        blocks.insert(name.to_owned(), bytes);
    }
    blocks
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_documents_examples_are_what_the_code_writes() {
    let documented = documented();
    let examples = examples();
    assert_eq!(documented.len(), examples.len());
    for (name, bytes) in examples {
        let found = documented.get(name).map_or_else(String::new, |bytes| hex(bytes));
        assert_eq!(found, hex(&bytes), "example {name}");
    }
}

/// What the document says of codes and bounds is what the code has.
#[test]
fn the_documents_numbers_are_those_of_the_code() {
    use isthmus_link::proto::frame::{FRAME_BODY_BYTES_MAX, PADDING_BYTES_MAX};
    use isthmus_link::proto::header::{HEADER_BODY_BYTES_MAX, REPLY_BODY_BYTES_MAX};
    use isthmus_link::proto::session::{CloseCode, FRAMES_PER_SECOND_MAX, OUTPUT_BYTES_MAX};
    let text = include_str!("../../PROTOCOL.md");
    for code in 0..8 {
        let label = CloseCode::from_wire(code).label();
        assert!(text.contains(&format!("| {code} | `{label}` |")), "close code {code} {label}");
    }
    for code in 1..7 {
        let label = RefuseCode::from_wire(code).label();
        assert!(text.contains(&format!("| {code} | `{label}` |")), "refusal {code} {label}");
    }
    let numbers = [
        ("control frame body", FRAME_BODY_BYTES_MAX),
        ("ping padding", PADDING_BYTES_MAX),
        ("stream header body", HEADER_BODY_BYTES_MAX),
        ("stream reply body", REPLY_BODY_BYTES_MAX),
        ("unread control bytes", OUTPUT_BYTES_MAX),
        ("control frames in a second", usize::try_from(FRAMES_PER_SECOND_MAX).unwrap()),
    ];
    for (name, value) in numbers {
        assert!(text.contains(&format!("| {name} | {value} |")), "{name} {value}");
    }
}
