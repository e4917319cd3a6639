//! Raw bytes over TCP.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::soon;

/// What came back until the peer closed.
pub(crate) struct Raw {
    pub(crate) text: String,
    /// Whether the peer closed the connection (rather than the test running out of time).
    pub(crate) closed: bool,
}

impl Raw {
    /// The status of every response in it.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let lines = self.text.split("HTTP/1.1 ").skip(1);
        lines.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
    }
}

/// Sends bytes and reads until the peer closes or says nothing more.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Raw {
    let mut stream = soon("connect", TcpStream::connect(address)).await.unwrap();
    // The peer may refuse and close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let closed = loop {
        match tokio::time::timeout(QUIET, stream.read_buf(&mut all)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(_)) => {}
            Err(_) => break false,
        }
    };
    Raw { text: String::from_utf8_lossy(&all).into_owned(), closed }
}

/// How long a peer may be silent before it is taken to have said everything.
const QUIET: Duration = Duration::from_secs(3);
