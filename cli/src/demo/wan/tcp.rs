//! Connections of one path.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use isthmus_runtime::clock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::Route;
use super::command::Cut;

/// Passes connections on for as long as the path exists.
pub(super) async fn relay(listener: TcpListener, route: Route) {
    let bound = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&bound).acquire_owned().await else {
            return;
        };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let route = route.clone();
        connections.spawn(async move {
            let _permit = permit;
            // Either side's failure ends both, which is all that a relay can tell.
            let _ = connection(client, route).await;
        });
    }
}

async fn connection(client: TcpStream, route: Route) -> io::Result<()> {
    let mut cut = route.cut.clone();
    restored(&mut cut).await;
    let server = TcpStream::connect(route.to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let there = direction(client_read, server_write, &route);
    let here = direction(server_read, client_write, &route);
    tokio::try_join!(there, here).map(|((), ())| ())
}

/// One direction: a reader that stamps what it reads and a writer that waits for it.
async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    route: &Route,
) -> io::Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let delay = route.delay;
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            let count = from.read_buf(&mut chunk).await?;
            let due = clock::now() + delay;
            // An empty chunk is the end of the stream, which takes its time like data.
            if sender.send((due, chunk.freeze())).await.is_err() || count == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let mut cut = route.cut.clone();
    let write = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due.into()).await;
            restored(&mut cut).await;
            if chunk.is_empty() {
                break;
            }
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|((), ())| ())
}

/// Waits while everything is cut.
async fn restored(cut: &mut watch::Receiver<Cut>) {
    // An error means that the relay ends, and with it this connection.
    let _ = cut.wait_for(|cut| *cut != Cut::All).await;
}

/// Connections of one path at a time.
const CONNECTIONS_MAX: usize = 256;
/// Chunks of one direction on their way: at most 4 MiB.
const CHUNKS_MAX: usize = 128;
const CHUNK_BYTES: usize = 32 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
