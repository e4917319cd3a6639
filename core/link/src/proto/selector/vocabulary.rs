//! The words of the selector: transports, events, actions, reasons and settings.

use std::time::Duration;

/// The two ways to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TLS and yamux over TCP.
    Tcp,
}

impl Transport {
    /// The name for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// Number of a connection, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Which transports a lane may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// Race both. The default.
    #[default]
    Auto,
    /// QUIC alone.
    QuicOnly,
    /// TCP alone.
    TcpOnly,
}

/// Why a lane's connection changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeReason {
    /// The first connection.
    Initial,
    /// The peer is shutting down or moves its links elsewhere.
    PeerDraining,
    /// QUIC lost too many packets.
    QuicLossy,
    /// The QUIC connection ended or fell silent.
    QuicLost,
    /// QUIC has stayed up through its probation.
    QuicRecovered,
    /// QUIC delivered too little while more was waiting.
    QuicSlow,
    /// QUIC did not complete a handshake before TCP did.
    QuicUnavailable,
    /// The TCP connection ended or fell silent.
    TcpLost,
}

impl ChangeReason {
    /// The name for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::PeerDraining => "peer_draining",
            Self::QuicLossy => "quic_lossy",
            Self::QuicLost => "quic_lost",
            Self::QuicRecovered => "quic_recovered",
            Self::QuicSlow => "quic_slow",
            Self::QuicUnavailable => "quic_unavailable",
            Self::TcpLost => "tcp_lost",
        }
    }
}

/// What the selector is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A connection ended.
    ConnectionLost(ConnectionId),
    /// A handshake, Hello included, is done.
    HandshakeDone(Transport, ConnectionId),
    /// A handshake failed or took too long.
    HandshakeFailed(Transport),
    /// The peer takes no new streams on a connection.
    PeerDraining(ConnectionId),
    /// A connection's measurements over the last interval.
    Sample(ConnectionId, PathSample),
}

/// A connection's measurements over one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PathSample {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Share of lost packets, from 0 to 1.
    pub loss: f64,
    /// Bytes delivered in a second.
    pub goodput: u64,
    /// Bytes that wait to be sent.
    pub backlog: u64,
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Give a handshake up.
    CancelDial(Transport),
    /// End a connection and its streams.
    Close(ConnectionId),
    /// Start a handshake; answered by one `HandshakeDone` or `HandshakeFailed`.
    Dial(Transport),
    /// Let a connection's streams end, open no new ones.
    Retire(ConnectionId),
    /// Keep a connection without opening streams on it.
    Standby(ConnectionId),
    /// Open new streams on this connection from here on.
    Use(ConnectionId, ChangeReason),
}

/// The selector's numbers.
#[derive(Debug, Clone)]
pub struct SelectorSettings {
    /// Which transports to use. Default: both.
    pub transports: TransportChoice,
    /// Head start of QUIC over TCP. Default: 250 ms.
    pub tcp_delay: Duration,
    /// Keep a TCP connection ready beside QUIC. Default: no.
    pub keep_warm: bool,
    /// First and longest delay between dials when nothing is up. Default: 250 ms, 5 s.
    pub reconnect: (Duration, Duration),
    /// First and longest delay between dials of QUIC while on TCP. Default: 1 s, 30 s.
    pub probe: (Duration, Duration),
    /// How long a new QUIC connection must live before it takes over. Default: 2 s.
    pub stability: Duration,
    /// Longest probation and cool-down after flapping. Default: 5 min.
    pub hold_max: Duration,
    /// QUIC stays down for this long after a demotion by quality. Default: 10 s.
    pub cooldown: Duration,
    /// Losses of QUIC this far apart do not add up. Default: 2 min.
    pub flap_window: Duration,
    /// Share of lost packets from which a sample is bad. Default: 0.10.
    pub loss_max: f64,
    /// Bytes a second below which a sample with a backlog is bad. Default: 64 KiB.
    pub goodput_min: u64,
    /// Bytes waiting that make a backlog. Default: 64 KiB.
    pub backlog_min: u64,
    /// Bad samples in a row that demote QUIC. Default: 3.
    pub bad_samples: u32,
}

impl Default for SelectorSettings {
    fn default() -> Self {
        Self {
            transports: TransportChoice::Auto,
            tcp_delay: Duration::from_millis(250),
            keep_warm: false,
            reconnect: (Duration::from_millis(250), Duration::from_secs(5)),
            probe: (Duration::from_secs(1), Duration::from_secs(30)),
            stability: Duration::from_secs(2),
            hold_max: Duration::from_secs(300),
            cooldown: Duration::from_secs(10),
            flap_window: Duration::from_secs(120),
            loss_max: 0.10,
            goodput_min: 64 * 1024,
            backlog_min: 64 * 1024,
            bad_samples: 3,
        }
    }
}
