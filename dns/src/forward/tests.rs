//! A real upstream on loopback that tells the truth, lies, or keeps silent.

use std::future::Future;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, RData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &Name, last: u8) -> Record {
    Record::from_rdata(owner.clone(), 60, RData::A(A::new(192, 0, 2, last)))
}

fn genuine(asked: &Message, last: u8) -> Message {
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.queries = asked.queries.clone();
    answer.answers = vec![a(&asked.queries[0].name, last)];
    answer
}

struct Upstream {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Upstream {
    async fn start() -> Self {
        // Another socket may have the TCP port of the same number: try the next one.
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = TcpListener::bind(address).await {
                return Self { udp, tcp, address };
            }
        }
    }

    /// Answers one datagram with several.
    async fn answer_udp(&self, make: impl Fn(&Message) -> Vec<Message>) {
        let mut buffer = [0; 4096];
        let (length, from) = self.udp.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        for message in make(&asked) {
            self.udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
        }
    }

    async fn answer_tcp(&self, make: impl Fn(&Message) -> Message) {
        let (mut stream, _) = self.tcp.accept().await.unwrap();
        let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut packet).await.unwrap();
        let bytes = make(&Message::from_vec(&packet).unwrap()).to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
}

fn forwarder(upstreams: &[SocketAddr]) -> Forwarder {
    let mut settings = ForwardSettings::new(upstreams.to_vec());
    settings.attempt_timeout = Duration::from_millis(500);
    Forwarder::new(settings, Arc::new(Metrics::default())).unwrap()
}

async fn ask_with(
    forwarder: &Forwarder,
    upstream: impl Future<Output = ()>,
) -> Result<Resolved, ForwardError> {
    let lookup = Lookup::new(&name("www.example."), RecordType::A);
    let (outcome, ()) = tokio::join!(forwarder.lookup(&lookup), upstream);
    outcome
}

fn addresses(resolved: &Resolved) -> Vec<String> {
    resolved.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn lies_are_passed_over_and_the_truth_is_waited_for() {
    let upstream = Upstream::start().await;
    let forwarder = forwarder(&[upstream.address]);
    let resolved = ask_with(
        &forwarder,
        upstream.answer_udp(|asked| {
            let truth = genuine(asked, 1);
            let lie = || genuine(asked, 66);
            let mut wrong_id = lie();
            wrong_id.metadata.id ^= 1;
            let mut wrong_name = lie();
            wrong_name.queries = vec![Query::query(name("evil.example."), RecordType::A)];
            let mut wrong_kind = lie();
            wrong_kind.queries[0].query_type = RecordType::AAAA;
            let mut wrong_class = lie();
            wrong_class.queries[0].query_class = DNSClass::CH;
            let mut two = lie();
            two.queries.push(two.queries[0].clone());
            let mut none = lie();
            none.queries.clear();
            let mut not_a_response = asked.clone();
            not_a_response.answers = lie().answers;
            vec![wrong_id, wrong_name, wrong_kind, wrong_class, two, none, not_a_response, truth]
        }),
    );
    assert_eq!(addresses(&resolved.await.unwrap()), ["192.0.2.1"]);
    assert_eq!(forwarder.metrics.value(Count::UpstreamMismatch), 7);
}

#[tokio::test]
async fn records_nobody_asked_for_are_taken_out_and_never_cached() {
    let upstream = Upstream::start().await;
    let forwarder = forwarder(&[upstream.address]);
    let poison = |asked: &Message| {
        let mut answer = genuine(asked, 1);
        answer.answers.push(a(&name("cart.shop.svc.clusterset.local."), 66));
        answer.additionals.push(a(&name("bank.example."), 66));
        vec![answer]
    };
    let resolved = ask_with(&forwarder, upstream.answer_udp(poison)).await.unwrap();
    assert_eq!(addresses(&resolved), ["192.0.2.1"]);
    assert_eq!(forwarder.metrics.value(Count::UpstreamRecords), 2);
    let resolved = ask_with(&forwarder, async {}).await.unwrap();
    assert_eq!(addresses(&resolved), ["192.0.2.1"], "the second time without the upstream");
    assert_eq!(forwarder.metrics.value(Count::ForwardCached), 1);
    let ours = Lookup::new(&name("x.CLUSTERSET.local."), RecordType::A);
    assert!(matches!(forwarder.lookup(&ours).await, Err(ForwardError::Ours { .. })));
}

#[tokio::test]
async fn a_cut_answer_and_a_lost_case_go_over_tcp() {
    for lose_case in [false, true] {
        let upstream = Upstream::start().await;
        let forwarder = forwarder(&[upstream.address]);
        let over_udp = |asked: &Message| {
            let mut answer = genuine(asked, 66);
            if lose_case {
                // All upper, then all lower: at most one can be the case that was asked.
                let upper = asked.queries[0].name.to_ascii().to_uppercase();
                let mut text = name(&upper);
                if text.eq_case(&asked.queries[0].name) {
                    text = text.to_lowercase();
                }
                answer.queries[0].name = text;
            } else {
                answer.metadata.truncation = true;
            }
            vec![answer]
        };
        let both = async {
            upstream.answer_udp(over_udp).await;
            upstream.answer_tcp(|asked| genuine(asked, 1)).await;
        };
        let resolved = ask_with(&forwarder, both).await.unwrap();
        assert_eq!(addresses(&resolved), ["192.0.2.1"]);
    }
}

#[tokio::test]
async fn the_next_upstream_is_asked_when_one_fails_and_then_preferred() {
    let (bad, good) = (Upstream::start().await, Upstream::start().await);
    let forwarder = forwarder(&[bad.address, good.address]);
    let refuse = |asked: &Message| {
        let mut answer = genuine(asked, 66);
        answer.answers.clear();
        answer.metadata.response_code = ResponseCode::ServFail;
        vec![answer]
    };
    let both = async {
        bad.answer_udp(refuse).await;
        good.answer_udp(|asked| vec![genuine(asked, 1)]).await;
    };
    assert_eq!(addresses(&ask_with(&forwarder, both).await.unwrap()), ["192.0.2.1"]);
    let lookup = Lookup::new(&name("other.example."), RecordType::A);
    let (outcome, ()) =
        tokio::join!(forwarder.lookup(&lookup), good.answer_udp(|asked| vec![genuine(asked, 2)]));
    assert_eq!(addresses(&outcome.unwrap()), ["192.0.2.2"]);
}

#[tokio::test]
async fn negative_answers_keep_their_code_and_are_cached() {
    let upstream = Upstream::start().await;
    let forwarder = forwarder(&[upstream.address]);
    let no = |asked: &Message| {
        let mut answer = genuine(asked, 66);
        answer.answers.clear();
        answer.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(name("ns.example."), name("h.example."), 1, 1, 1, 1, 60);
        answer.authorities = vec![Record::from_rdata(name("example."), 60, RData::SOA(soa))];
        vec![answer]
    };
    let first = ask_with(&forwarder, upstream.answer_udp(no)).await.unwrap();
    assert_eq!((first.code, first.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(ask_with(&forwarder, async {}).await.unwrap(), first);
}

#[tokio::test]
async fn one_question_of_many_clients_is_asked_once() {
    let upstream = Upstream::start().await;
    let forwarder = forwarder(&[upstream.address]);
    let lookup = Lookup::new(&name("www.example."), RecordType::A);
    let (first, second, third, ()) = tokio::join!(
        forwarder.lookup(&lookup),
        forwarder.lookup(&lookup),
        forwarder.lookup(&lookup),
        upstream.answer_udp(|asked| vec![genuine(asked, 1)]),
    );
    assert_eq!(first, second);
    assert_eq!(second, third);
    assert_eq!(forwarder.metrics.value(Count::ForwardShared), 2);
    assert!(lock(&forwarder.under_way).is_empty());
}

#[tokio::test]
async fn stale_answers_are_given_when_every_upstream_fails() {
    let upstream = Upstream::start().await;
    let forwarder = forwarder(&[upstream.address]);
    let lookup = Lookup::new(&name("www.example."), RecordType::A);
    let resolved = Resolved {
        code: ResponseCode::NoError,
        answers: vec![a(&name("www.example."), 1)],
        authorities: Vec::new(),
    };
    let past = clock::now().checked_sub(Duration::from_secs(5)).unwrap();
    lock(&forwarder.cache).insert(past, lookup.clone(), resolved, Duration::from_secs(1));
    let outcome = forwarder.lookup(&lookup).await.unwrap();
    assert_eq!(outcome.answers[0].ttl, 30);
    assert_eq!(forwarder.metrics.value(Count::ForwardStale), 1);

    let unknown = Lookup::new(&name("unknown.example."), RecordType::A);
    let error = forwarder.lookup(&unknown).await.unwrap_err();
    assert!(matches!(error, ForwardError::Exhausted { upstreams: 1, .. }), "{error}");
    assert!(lock(&forwarder.under_way).is_empty());
}

#[test]
fn ourselves_are_no_upstream() {
    let own: SocketAddr = "127.0.0.1:53".parse().unwrap();
    let mut settings = ForwardSettings::new(vec![own]);
    settings.own = vec![own];
    assert!(Forwarder::new(settings, Arc::new(Metrics::default())).is_none());
}
