//! `isthmus demo-wan`: the wide area network between the clusters of the demo.
//!
//! For each path of the scenario it listens for UDP and TCP on one address and passes
//! both on to another, each direction later by half of the path's round trip. A path's
//! UDP, or all of it, can be cut and restored: what comes meanwhile is lost without a
//! word, as in a network that drops it, because a refusal would be an easier failure.
//!
//! Commands come line by line on standard input (`cut <path> udp`, `restore <path> all`)
//! and each is answered with one line on standard output, `ok` or `error: …`. The end of
//! standard input ends the process.
//!
//! # Flow
//!
//! 1. [`line`]: packets that wait for their time; pure.
//! 2. [`command`]: a line of text to a command; pure.
//! 3. [`udp`]: datagrams of one path, one socket for each client address.
//! 4. [`tcp`]: connections of one path.

pub(crate) mod command;
mod line;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use isthmus_runtime::Signals;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::command::{Command, Cut};
use super::scenario::{Scenario, WanPath};

/// Arguments of `isthmus demo-wan`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WanArgs {
    /// The folder that has demo.yaml
    #[arg(long)]
    pub(crate) folder: PathBuf,
}

/// Runs until standard input ends or a signal comes.
///
/// # Errors
///
/// The scenario is not valid, or an address cannot be bound.
pub(crate) fn run(args: &WanArgs) -> Result<ExitCode> {
    let scenario = Scenario::load(&args.folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let wan = Wan::start(&scenario.paths).await?;
        let mut lines = stdin_lines()?;
        say("ok")?;
        loop {
            // The order does not matter: a command is handled within one turn.
            let line = tokio::select! {
                line = lines.recv() => line,
                () = super::terminated(&mut signals) => None,
            };
            let Some(line) = line else {
                return Ok(ExitCode::SUCCESS);
            };
            match Command::parse(&line).and_then(|command| wan.apply(&command)) {
                Ok(()) => say("ok")?,
                Err(message) => say(&format!("error: {message}"))?,
            }
        }
    })
}

/// The running paths.
#[derive(Debug)]
struct Wan {
    cuts: BTreeMap<String, watch::Sender<Cut>>,
    _tasks: JoinSet<()>,
}

impl Wan {
    async fn start(paths: &[WanPath]) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let mut cuts = BTreeMap::new();
        for path in paths {
            let delay = Duration::from_millis(path.rtt_millis) / 2;
            let (cut, seen) = watch::channel(Cut::Nothing);
            let failed = || format!("path {}: cannot listen at {}", path.name, path.listen);
            let front = UdpSocket::bind(path.listen).await.with_context(failed)?;
            let listener = TcpListener::bind(path.listen).await.with_context(failed)?;
            let route = Route { to: path.to, delay, cut: seen };
            tasks.spawn(udp::relay(front, route.clone()));
            tasks.spawn(tcp::relay(listener, route));
            cuts.insert(path.name.clone(), cut);
        }
        Ok(Self { cuts, _tasks: tasks })
    }

    fn apply(&self, command: &Command) -> Result<(), String> {
        let cut = self.cuts.get(&command.path);
        let cut = cut.ok_or_else(|| format!("there is no path {}", command.path))?;
        cut.send_replace(command.cut);
        Ok(())
    }
}

/// What both halves of a path know.
#[derive(Debug, Clone)]
struct Route {
    to: std::net::SocketAddr,
    delay: Duration,
    cut: watch::Receiver<Cut>,
}

/// Reads standard input on a thread of its own: a read of it cannot be cancelled.
fn stdin_lines() -> Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Commands that wait to be handled.
const COMMANDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// An address that nobody else has: outgoing connections of other tests take ports of
    /// 127.0.0.1, so a port that was free for UDP there may be taken for TCP.
    fn own_address() -> SocketAddr {
        static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let process = std::process::id().to_be_bytes();
        SocketAddr::from(([127, process[2] | 128, process[3], number], 0))
    }

    async fn echoes() -> (SocketAddr, JoinSet<()>) {
        let udp = UdpSocket::bind(own_address()).await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (count, from) = udp.recv_from(&mut buffer).await.unwrap();
                udp.send_to(&buffer[..count], from).await.unwrap();
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        (address, tasks)
    }

    async fn wan(to: SocketAddr, rtt_millis: u64) -> (Wan, SocketAddr) {
        let listen = std::net::UdpSocket::bind(own_address()).unwrap().local_addr().unwrap();
        let path = WanPath { name: "p".to_owned(), from: "a".to_owned(), listen, to, rtt_millis };
        (Wan::start(&[path]).await.unwrap(), listen)
    }

    #[tokio::test]
    async fn datagrams_take_the_round_trip_and_are_lost_while_udp_is_cut() {
        let (to, _echoes) = echoes().await;
        let (wan, listen) = wan(to, 40).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(listen).await.unwrap();
        let mut buffer = [0; 16];
        let begun = isthmus_runtime::clock::now();
        client.send(b"one").await.unwrap();
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 3);
        assert!(begun.elapsed() >= Duration::from_millis(40));
        wan.apply(&Command::parse("cut p udp").unwrap()).unwrap();
        client.send(b"lost").await.unwrap();
        let lost = tokio::time::timeout(Duration::from_millis(150), client.recv(&mut buffer));
        assert!(lost.await.is_err());
        wan.apply(&Command::parse("restore p udp").unwrap()).unwrap();
        client.send(b"three").await.unwrap();
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn connections_take_the_round_trip_and_stall_while_all_is_cut() {
        let (to, _echoes) = echoes().await;
        let (wan, listen) = wan(to, 40).await;
        let mut client = TcpStream::connect(listen).await.unwrap();
        let mut buffer = [0; 3];
        let begun = isthmus_runtime::clock::now();
        client.write_all(b"one").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(40));
        wan.apply(&Command::parse("cut p all").unwrap()).unwrap();
        client.write_all(b"two").await.unwrap();
        let stalled = tokio::time::timeout(Duration::from_millis(150), client.read(&mut buffer));
        assert!(stalled.await.is_err());
        wan.apply(&Command::parse("restore p all").unwrap()).unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"two");
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_unknown_path_is_named() {
        let (to, _echoes) = echoes().await;
        let (wan, _) = wan(to, 0).await;
        let error = wan.apply(&Command::parse("cut q udp").unwrap()).unwrap_err();
        assert_eq!(error, "there is no path q");
    }
}
