//! How the state of one cluster reaches another: the replication protocol, without I/O.
//!
//! Each cluster is the single writer of its own state. For every peer it keeps one
//! [`Exporter`]: the entries that this peer may see (its export rules are applied before),
//! each with the version at which it last changed. The peer keeps one [`Importer`] for
//! it: the entries it accepted, and a lease.
//!
//! A position is (epoch, version). The epoch rises each time the writer starts, so that
//! late messages of a former writer are refused; the version rises with each changed
//! entry. A subscriber names the position it has and gets the difference, or, when the
//! writer no longer knows the difference, the full state in bounded chunks that are
//! applied as one. Because a difference is computed from the current entries when it is
//! sent, a slow subscriber costs no queue: it gets the latest state, later.
//!
//! Heartbeats carry a sequence that never goes back and renew the lease. When the lease
//! expires the peer's endpoints leave selection; its entries are kept as last known good.
//!
//! Nothing here trusts the transport: a frame may be lost, come twice or out of order. A
//! gap is answered by subscribing again from the last applied position.
//!
//! # Flow
//!
//! 1. [`entry`]: what a cluster says about itself.
//! 2. [`frame`]: what goes over a session.
//! 3. [`grant`]: import and export rules.
//! 4. [`exporter`]: the writer's side.
//! 5. [`admit`]: which entries of a peer are let in.
//! 6. [`lease`] and [`bucket`]: how long, and how fast.
//! 7. [`importer`]: the reader's side.

pub mod entry;

pub mod frame;

pub mod grant;

pub mod exporter;

pub mod admit;

pub mod lease;

pub mod bucket;

pub mod importer;

pub use self::admit::{PeerRules, Refused, RefusedCounts};
pub use self::entry::{
    BundleDocument, ClusterProperties, EndpointSummary, Entry, EntryKey, ExportedMetadata,
    ExportedService, ExportedTraffic, GatewayInfo, IpFamily, ServiceName, SessionAffinity,
    SummaryEndpoint,
};
pub use self::exporter::{Exporter, ExporterSettings, SubscribeOutcome};
pub use self::frame::{Body, Change, Frame, Position, Request, start_epoch};
pub use self::grant::Grants;
pub use self::importer::{CloseReason, Importer, ImporterSettings, SavedPeer, Violation};
pub use self::lease::{Lease, LeaseChange};

#[cfg(test)]
mod tests;
