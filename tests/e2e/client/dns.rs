//! Questions to a DNS server, made by hand.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::wait::soon;

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0 is success, 3 is that there is no such name.
    pub(crate) code: u8,
    /// The IPv4 addresses in it.
    pub(crate) addresses: Vec<Ipv4Addr>,
}

/// Asks for the IPv4 addresses of a name.
pub(crate) async fn ask(server: SocketAddr, name: &str) -> Result<Answer, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question(name)).await.map_err(|error| error.to_string())?;
    let mut buffer = [0; 1500];
    let count = soon("an answer of the DNS server", socket.recv(&mut buffer)).await;
    let count = count.map_err(|error| error.to_string())?;
    parse(&buffer[..count]).ok_or_else(|| format!("not an answer: {:?}", &buffer[..count]))
}

fn question(name: &str) -> Vec<u8> {
    // Id 0x1234, recursion desired, one question.
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels are short"));
        bytes.extend_from_slice(label.as_bytes());
    }
    // The root, type A, class IN.
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let code = bytes.get(3)? & 0x0f;
    let count = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]);
    let mut at = skip_name(bytes, 12)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..count {
        at = skip_name(bytes, at)?;
        let record = bytes.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([record[8], record[9]]));
        let data = bytes.get(at + 10..at + 10 + length)?;
        if let (&[0, 1], &[a, b, c, d]) = (&record[..2], data) {
            addresses.push(Ipv4Addr::new(a, b, c, d));
        }
        at += 10 + length;
    }
    Some(Answer { code, addresses })
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends the name.
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
