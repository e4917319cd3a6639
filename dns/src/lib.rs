//! The DNS of a cluster: `clusterset.local` for services that other clusters export,
//! `cluster.local` for this cluster's own, and forwarding for every other name.
//!
//! What a name means is decided by pure code from one immutable [`ZoneData`]; sockets,
//! clocks and upstream servers are in the shells. Names of our two zones are never
//! forwarded, and nothing that an upstream says can add to them.
//!
//! # Flow
//!
//! 1. [`zone`]: service records of the controller compiled into lookup maps.
//! 2. [`wire`]: a packet is inspected before anything is decoded or allocated for it.
//! 3. [`mod@answer`]: a question against a zone gives an [`Answer`]; pure.
//! 4. [`rate`]: which sources of datagrams are answered, told to use TCP, or ignored.
//! 5. [`server`]: UDP and TCP sockets, one answer for each query, graceful stop.
//! 6. [`forward`]: names that are not ours, from upstream servers or the cache.
//! 7. [`metrics`]: plain counters that the caller exports.

pub mod zone;

pub mod wire;

pub mod answer;

pub mod rate;

pub mod server;

pub mod forward;

pub mod metrics;

pub use crate::answer::{Answer, Question, ZoneKind, answer};
pub use crate::forward::{
    ForwardError, ForwardSettings, Forwarder, Lookup, ResolvConfError, Resolved,
    upstreams_from_resolv_conf, upstreams_of_file,
};
pub use crate::metrics::{Count, Metrics};
pub use crate::rate::{Rate, RateLimiter};
pub use crate::server::{DnsServer, ServerError, ServerSettings, Sockets};
pub use crate::wire::{DropReason, Inspection, inspect};
pub use crate::zone::{
    HeadlessEndpoint, PortProtocol, ServiceKind, ServicePortRecord, ServiceRecord, ZoneData,
    ZoneSource,
};
