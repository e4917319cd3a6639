//! The gateway: ingress (north-south) and east-west.
//!
//! Ingress serves the listeners of Gateway objects. East-west relays bytes between this
//! cluster and its peers: from local sidecars into a link, and from a link to local
//! sidecars, by an allow-list in both directions. Between two sidecars it relays
//! ciphertext that it has no key for.
//!
//! # Flow
//!
//! 1. [`ingress`]: starts the workers; [`fronts`] opens and closes sockets as Gateways
//!    change; [`certificates`] picks what TLS presents; [`router`] routes HTTP. [`tls`] tells
//!    listeners of one address apart by server name, [`streams`] carries what is not HTTP,
//!    [`datagrams`] UDP.
//! 2. [`eastwest`]: starts the links and the workers; [`outgoing`] takes CONNECT from
//!    sidecars, [`incoming`] takes streams from peers, [`standin`] answers for
//!    destinations that have no sidecar.
//! 3. [`dialer`]: how the ingress of the same process reaches remote endpoints.

pub mod ingress;

mod fronts;

mod certificates;

mod client_certificates;

pub mod router;

mod tls;

pub mod streams;

mod datagrams;

pub mod eastwest;

mod outgoing;

mod incoming;

mod standin;

mod relay_log;

pub mod dialer;

pub use crate::dialer::LinkDialer;
pub use crate::eastwest::{EastWest, EastWestOptions, LinkHandle};
pub use crate::ingress::{FrontStatus, Ingress, IngressOptions, Remote};
pub use crate::router::IngressRouter;
pub use crate::streams::{StreamChoice, route_stream};
