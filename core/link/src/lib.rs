//! The east-west link protocol: gateways of two clusters keep authenticated connections
//! to each other over QUIC and TCP on one port number, and open one bidirectional stream
//! on them for each application connection.
//!
//! A [`LinkSet`] owns all links of one gateway. It races the two transports with real
//! handshakes, keeps the one that delivers, and tells the peer when it drains. The bytes
//! are described in `PROTOCOL.md` beside this crate.
//!
//! # Flow
//!
//! 1. [`proto`]: the protocol without I/O: codec, session, transport selection.
//! 2. [`options`], [`limits`]: what a gateway gives: peers, sockets, TLS, bounds.
//! 3. `set`, `shared`: the set of links, its peers and counters.
//! 4. `lane`: one lane to a peer dials and decides; `accept`: the listening side.
//! 5. `handshake`, `quic`, `tcp`, `record`: from an address to an authenticated
//!    connection of either transport; `window`: the budget of flow-control windows.
//! 6. `control`, `task`: an established connection's control stream and timers.
//! 7. `connection`, `raw`, `link`, `peer`: streams of either transport, and which
//!    connection gets the next one.
//! 8. [`stream`]: what the gateway reads and writes.
//! 9. [`status`], [`error`]: what is seen from outside.

pub mod proto;

pub mod options;

pub mod limits;

mod set;

mod shared;

mod lane;

mod accept;

mod handshake;

mod quic;

mod tcp;

mod record;

mod window;

mod control;

mod task;

mod connection;

mod raw;

mod link;

mod peer;

pub mod stream;

pub mod status;

pub mod error;

pub use crate::error::{OpenError, StartError};
pub use crate::limits::{LinkLimits, LinkTimers};
pub use crate::options::{ALPN, Authenticate, ClientTls, DEFAULT_PORT, LinkOptions, PeerConfig};
pub use crate::proto::header::{RefuseCode, StreamHeader, StreamRefused, TraceContext};
pub use crate::proto::selector::{ChangeReason, SelectorSettings, Transport, TransportChoice};
pub use crate::set::LinkSet;
pub use crate::status::{LinkCounters, LinkState, LinkStatus};
pub use crate::stream::{IncomingStream, LinkStream};
