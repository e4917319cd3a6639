//! Real sockets on loopback, raw messages.

use std::net::SocketAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, OPT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use isthmus_model::{ClusterId, Hostname, Label, ServiceKey};
use isthmus_runtime::{bind_tcp, bind_udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;
use crate::forward::ForwardSettings;
use crate::metrics::Count;
use crate::server::reply::Transport;
use crate::zone::{HeadlessEndpoint, ServiceKind, ServiceRecord, ZoneSource};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn zone(cart: &str) -> ZoneData {
    let cluster = ClusterId::new("cluster-a").unwrap();
    let label = |text: &str| Label::new(text).unwrap();
    let mut source = ZoneSource::new(cluster.clone());
    let service = |key, kind| ServiceRecord { key, kind, ports: Vec::new() };
    let endpoints = (0..900u16)
        .map(|n| HeadlessEndpoint {
            hostname: None,
            cluster: cluster.clone(),
            ip: format!("10.1.{}.{}", n / 250, n % 250).parse().unwrap(),
            ready: true,
        })
        .collect();
    source.services = vec![
        service(
            ServiceKey::clusterset(label("shop"), label("cart")),
            ServiceKind::ClusterIp { ips: vec![cart.parse().unwrap()] },
        ),
        service(
            ServiceKey::clusterset(label("shop"), label("big")),
            ServiceKind::Headless { endpoints },
        ),
        service(
            ServiceKey::cluster(label("shop"), label("web")),
            ServiceKind::ExternalName { target: Hostname::new("www.example").unwrap() },
        ),
    ];
    ZoneData::build(source)
}

struct World {
    server: DnsServer,
    zone: SnapshotCell<ZoneData>,
    address: SocketAddr,
    client: UdpSocket,
}

impl World {
    async fn start() -> Self {
        Self::with(ServerSettings::default(), None).await
    }

    async fn with(settings: ServerSettings, upstream: Option<SocketAddr>) -> Self {
        let (sockets, address) = loop {
            let udp = bind_udp("127.0.0.1:0".parse().unwrap(), 2).unwrap();
            let address = udp[0].local_addr().unwrap();
            // Another socket may have the TCP port of the same number: try the next one.
            if let Ok(tcp) = bind_tcp(address, 2) {
                break (Sockets { udp, tcp }, address);
            }
        };
        let metrics = Arc::new(Metrics::default());
        let forwarder = upstream.and_then(|upstream| {
            let settings = ForwardSettings::new(vec![upstream]);
            Forwarder::new(settings, Arc::clone(&metrics)).map(Arc::new)
        });
        let cell = SnapshotCell::new(zone("10.0.0.1"));
        let server =
            DnsServer::start(sockets, cell.clone(), forwarder, &settings, metrics).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(address).await.unwrap();
        Self { server, zone: cell, address, client }
    }

    async fn send(&self, packet: &[u8]) {
        self.client.send(packet).await.unwrap();
    }

    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let limit = Duration::from_secs(5);
        let received = tokio::time::timeout(limit, self.client.recv(&mut buffer)).await;
        buffer.truncate(received.expect("an answer within 5 s").unwrap());
        buffer
    }

    async fn udp(&self, message: &Message) -> Message {
        self.send(&message.to_vec().unwrap()).await;
        Message::from_vec(&self.receive().await).unwrap()
    }

    async fn tcp(&self, message: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        write_frame(&mut stream, &message.to_vec().unwrap()).await;
        read_frame(&mut stream).await
    }

    /// The server is alive, and nothing else was waiting to be received.
    async fn is_alive(&self) {
        let asked = cart();
        let answer = self.udp(&asked).await;
        assert_eq!(answer.metadata.id, asked.metadata.id, "the answer to this query comes first");
        assert_eq!(addresses(&answer), ["10.0.0.1"]);
    }
}

async fn write_frame(stream: &mut TcpStream, packet: &[u8]) {
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(packet).await.unwrap();
}

async fn read_frame(stream: &mut TcpStream) -> Message {
    let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut packet).await.unwrap();
    Message::from_vec(&packet).unwrap()
}

fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn cart() -> Message {
    query("cart.shop.svc.clusterset.local.", RecordType::A)
}

fn with_edns(mut message: Message, payload: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_answer_repeats_the_question_in_its_own_case() {
    let world = World::start().await;
    let asked = query("CaRt.sHoP.SVC.clusterset.LOCAL.", RecordType::A);
    for answer in [world.udp(&asked).await, world.tcp(&asked).await] {
        assert_eq!(answer.metadata.id, asked.metadata.id);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
        assert!(!answer.metadata.recursion_available, "nobody to forward to");
        assert!(answer.queries[0].name.eq_case(&asked.queries[0].name));
        assert!(answer.answers[0].name.eq_case(&asked.queries[0].name));
        assert!(answer.edns.is_none());
        assert_eq!(addresses(&answer), ["10.0.0.1"]);
    }
}

#[tokio::test]
async fn negative_answers_carry_the_soa() {
    let world = World::start().await;
    let missing = world.udp(&query("x.clusterset.local.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let empty = world.udp(&query("cart.shop.svc.clusterset.local.", RecordType::AAAA)).await;
    assert_eq!(empty.metadata.response_code, ResponseCode::NoError);
    assert!(empty.answers.is_empty());
    assert_eq!(empty.authorities[0].record_type(), RecordType::SOA);
    let other = world.udp(&query("example.com.", RecordType::A)).await;
    assert_eq!(other.metadata.response_code, ResponseCode::Refused);
    assert!(!other.metadata.authoritative);
}

#[tokio::test]
async fn a_new_zone_is_served_after_one_swap() {
    let world = World::start().await;
    world.is_alive().await;
    world.zone.publish(Arc::new(zone("10.0.0.2")));
    assert_eq!(addresses(&world.udp(&cart()).await), ["10.0.0.2"]);
}

#[tokio::test]
async fn large_answers_are_cut_over_udp_and_whole_over_tcp() {
    let world = World::start().await;
    let big = || query("big.shop.svc.clusterset.local.", RecordType::A);
    for (asked, limit) in [
        (big(), 512),
        (with_edns(big(), 0, 0), 512),
        (with_edns(big(), 800, 0), 800),
        (with_edns(big(), 65_535, 0), 1232),
    ] {
        world.send(&asked.to_vec().unwrap()).await;
        let bytes = world.receive().await;
        assert!(bytes.len() <= limit && bytes.len() > limit - 40, "{} of {limit}", bytes.len());
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation);
        assert!(!answer.answers.is_empty());
        assert_eq!(answer.edns.is_some(), asked.edns.is_some());
        let whole = world.tcp(&asked).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 900);
    }
    assert_eq!(world.server.metrics().value(Count::Truncated), 4);
}

#[tokio::test]
async fn edns_is_answered_with_our_own_and_other_versions_with_badvers() {
    let world = World::start().await;
    let answer = world.udp(&with_edns(cart(), 4096, 0)).await;
    let edns = answer.edns.clone().unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (EDNS_PAYLOAD_BYTES, 0));
    assert!(edns.flags().dnssec_ok, "RFC 3225: the DO bit is repeated");

    let answer = world.udp(&with_edns(cart(), 4096, 1)).await;
    // The codec reads code 16 as BADSIG, its meaning in TSIG.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.as_ref().map(Edns::version), Some(0));
    assert!(answer.answers.is_empty());

    let mut two = with_edns(cart(), 1232, 0);
    let opt = Record::from_rdata(Name::root(), 0, RData::OPT(OPT::default()));
    two.additionals.push(opt);
    assert_eq!(world.udp(&two).await.metadata.response_code, ResponseCode::FormErr);
    world.is_alive().await;
}

#[tokio::test]
async fn malformed_packets_are_form_errors_and_the_next_query_is_answered() {
    let world = World::start().await;
    let header = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let long: Vec<u8> = [b"\x3f".as_slice(), &[b'x'; 63]].concat().repeat(4);
    let tails: Vec<Vec<u8>> = vec![
        vec![0xc0, 12, 0, 1, 0, 1],
        vec![0xc0, 14, 0xc0, 12, 0, 1, 0, 1],
        vec![0xc0, 0, 0, 1, 0, 1],
        vec![0x41, b'a', 0, 0, 1, 0, 1],
        vec![0x81, b'a', 0, 0, 1, 0, 1],
        [long, vec![0, 0, 1, 0, 1]].concat(),
        vec![0, 0, 1],
        vec![],
        b"\x01a\x00\x00\x01\x00\x01rubbish".to_vec(),
    ];
    for tail in &tails {
        world.send(&[header.as_slice(), tail].concat()).await;
        let answer = Message::from_vec(&world.receive().await).unwrap();
        assert_eq!(answer.metadata.id, 0xabcd);
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{tail:?}");
        world.is_alive().await;
    }
    for (at, value) in [(5, 0), (5, 2), (4, 0xff), (7, 1), (9, 9), (11, 9)] {
        let mut packet = cart().to_vec().unwrap();
        packet[at] = value;
        world.send(&packet).await;
        let answer = Message::from_vec(&world.receive().await).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{at}={value}");
    }
    for opcode in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut message = cart();
        message.metadata.op_code = opcode;
        assert_eq!(world.udp(&message).await.metadata.response_code, ResponseCode::NotImp);
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        let message = query("clusterset.local.", kind);
        assert_eq!(world.tcp(&message).await.metadata.response_code, ResponseCode::Refused);
    }
    world.is_alive().await;
}

#[tokio::test]
async fn responses_and_stumps_get_silence() {
    let world = World::start().await;
    let mut response = cart();
    response.metadata.message_type = MessageType::Response;
    let response = response.to_vec().unwrap();
    world.send(&response).await;
    world.send(&response[..20]).await;
    world.send(&response[..11]).await;
    world.send(&[]).await;
    world.is_alive().await;
    // One socket pair is one flow, so all of it was handled in order.
    let metrics = world.server.metrics();
    assert_eq!(metrics.value(Count::DroppedResponse), 2);
    assert_eq!(metrics.value(Count::DroppedShort), 2);
    assert_eq!(metrics.value(Count::CodeNoError), 1);
}

#[tokio::test]
async fn a_source_over_its_rate_is_cut_and_may_use_tcp() {
    let settings = ServerSettings { rate_per_source: 1, ..ServerSettings::default() };
    let world = World::with(settings, None).await;
    world.is_alive().await;
    let mut cut = None;
    for _ in 0..2 {
        world.send(&cart().to_vec().unwrap()).await;
    }
    while cut.is_none() {
        let answer = Message::from_vec(&world.receive().await).unwrap();
        cut = answer.metadata.truncation.then_some(answer);
    }
    let cut = cut.unwrap();
    assert!(cut.answers.is_empty());
    assert_eq!(cut.queries, cart().queries);
    assert_eq!(addresses(&world.tcp(&cart()).await), ["10.0.0.1"]);
}

#[tokio::test]
async fn tcp_is_pipelined_and_closed_when_idle_or_absurd() {
    let settings =
        ServerSettings { tcp_idle: Duration::from_millis(500), ..ServerSettings::default() };
    let world = World::with(settings, None).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let packet = cart().to_vec().unwrap();
    let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet.as_slice()].concat();
    stream.write_all(&framed.repeat(100)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(addresses(&read_frame(&mut stream).await), ["10.0.0.1"]);
    }
    // One byte of a query and then nothing: closed by the server.
    stream.write_all(&framed[..3]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    for absurd in [[0, 0], [0xff, 0xff]] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(&absurd).await.unwrap();
        stream.write_all(b"0123456789").await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn one_client_has_only_so_many_tcp_connections() {
    let settings = ServerSettings { tcp_connections_per_client: 3, ..ServerSettings::default() };
    let world = World::with(settings, None).await;
    let packet = cart().to_vec().unwrap();
    let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes(), packet.as_slice()].concat();
    // Two listeners with three places for this client: at most six stay open.
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(TcpStream::connect(world.address).await.unwrap());
    }
    let mut answered = 0;
    for stream in &mut kept {
        let sent = stream.write_all(&framed).await.is_ok();
        let mut first = [0; 1];
        if sent && matches!(stream.read(&mut first).await, Ok(1)) {
            answered += 1;
        }
    }
    assert!((1..=6).contains(&answered), "{answered}");
    assert!(world.server.metrics().value(Count::DroppedOverload) >= 14);
}

#[tokio::test]
async fn other_names_are_forwarded_and_aliases_followed_out() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let world = World::with(ServerSettings::default(), Some(address)).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = upstream.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let owner = &asked.queries[0].name;
            assert_eq!(owner.to_lowercase(), name("www.example."), "nothing of ours leaks");
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.queries = asked.queries.clone();
            let data = RData::A(A::new(192, 0, 2, 1));
            answer.answers = vec![Record::from_rdata(owner.clone(), 60, data)];
            upstream.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    let asked = query("WWW.example.", RecordType::A);
    let answer = world.udp(&asked).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.queries[0].name.eq_case(&asked.queries[0].name));
    assert_eq!(addresses(&world.tcp(&asked).await), ["192.0.2.1"]);

    let web = query("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(addresses(&world.udp(&web).await), ["www.example.", "192.0.2.1"]);
    let missing = query("none.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(world.udp(&missing).await.metadata.response_code, ResponseCode::NXDomain);

    let mut not_recursive = query("www.example.", RecordType::A);
    not_recursive.metadata.recursion_desired = false;
    assert_eq!(world.udp(&not_recursive).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(world.server.metrics().value(Count::ForwardUpstream), 1);
}

#[tokio::test]
async fn a_loop_through_ourselves_ends_in_servfail() {
    // The upstream hands every question back to the server and every answer to where the
    // question came from, as a resolver that forwards to us would.
    let relay = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let world = World::with(ServerSettings::default(), Some(relay.local_addr().unwrap())).await;
    let server = world.address;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        let mut asked_by = None;
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            let to = if from == server { asked_by } else { Some(server) };
            if from != server {
                asked_by = Some(from);
            }
            if let Some(to) = to {
                relay.send_to(&buffer[..length], to).await.unwrap();
            }
        }
    });
    let asked = query("loop.example.", RecordType::A);
    world.send(&asked.to_vec().unwrap()).await;
    let answer = Message::from_vec(&world.receive().await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    world.is_alive().await;
}

#[test]
fn no_bent_packet_panics() {
    let metrics = Arc::new(Metrics::default());
    let responder = Responder::new(SnapshotCell::new(zone("10.0.0.1")), None, Arc::clone(&metrics));
    let source = "192.0.2.1:4000".parse().unwrap();
    let packet = with_edns(cart(), 1232, 0).to_vec().unwrap();
    for at in 0..packet.len() {
        for value in 0..=255 {
            let mut bent = packet.clone();
            bent[at] = value;
            responder.step(&bent, source, Transport::Udp);
            responder.step(&bent[..at], source, Transport::Tcp);
        }
    }
    assert_eq!(metrics.value(Count::DroppedPanic), 0);
    assert!(metrics.value(Count::CodeNoError) > 0 && metrics.value(Count::CodeFormErr) > 0);
}

#[tokio::test]
async fn stopping_frees_the_port() {
    let world = World::start().await;
    world.is_alive().await;
    let idle = TcpStream::connect(world.address).await.unwrap();
    let outcome = world.server.stop(Duration::from_secs(5)).await;
    assert_eq!(outcome, DrainOutcome::Complete);
    drop(idle);
    bind_udp(world.address, 1).unwrap();
    bind_tcp(world.address, 1).unwrap();
}
