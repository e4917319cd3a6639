//! The vocabulary of Isthmus and its validated model: names, identities, services,
//! endpoints, listeners, routes, and the immutable [`Snapshot`] that a data plane
//! routes from.
//!
//! Everything here is pure: no tokio, no sockets, no clock, no randomness. A value of
//! one of these types is valid by construction; raw objects (YAML, protobuf) are
//! converted at the edge, in `config`, `federation` and `core/discovery`.
//!
//! # Flow
//!
//! 1. [`name`] and [`identity`]: the newtypes that every other file uses.
//! 2. [`service`], [`endpoint`], [`gateway`], [`route`], [`backend_tls`], [`policy`], [`peer`]: one file
//!    for each kind of object, mirroring what the user wrote.
//! 3. [`resource`]: the unit that discovery carries; one changed object is one resource.
//! 4. [`snapshot`]: resources compiled into one immutable value with a [`Generation`].
//! 5. [`hosts`] and [`table`]: the compiled host and path tables inside a snapshot.
//! 6. [`locality`]: which endpoints are near, as ordered tiers.
//! 7. [`decision`]: a request against a snapshot gives a [`Decision`], with a trail for
//!    `isthmus explain`.

pub mod name;

pub mod identity;

pub mod service;

pub mod endpoint;

pub mod gateway;

pub mod route;

pub mod backend_tls;

pub mod policy;

pub mod peer;

pub mod resource;

pub mod snapshot;

pub mod hosts;

pub mod table;

pub mod locality;

pub mod decision;

pub use crate::backend_tls::{BackendRoots, BackendTls, SubjectName};
pub use crate::decision::{Decision, RequestHead, Step, Trail};
pub use crate::endpoint::{Endpoint, EndpointTarget, Endpoints, Health, MeshPort};
pub use crate::gateway::{
    Certificate, ClientValidation, Listener, ListenerFamily, ListenerProtocol,
};
pub use crate::identity::{SpiffeId, TrustDomain};
pub use crate::locality::{Assignment, LinkDistance, Tier};
pub use crate::name::{
    ClusterId, EndpointId, Hostname, InvalidName, Label, Locality, ObjectName, ServiceKey,
    ServiceScope,
};
pub use crate::peer::{LinkState, LinkTransport, Peer, TrustBundle};
pub use crate::policy::{MtlsMode, PeerAuthentication};
pub use crate::resource::{Resource, ResourceKey, ResourceKind};
pub use crate::route::{
    Backend, BackendTarget, HttpRoute, HttpRouteKind, Rule, StreamRoute, StreamRouteKind,
};
pub use crate::service::{AppProtocol, Service, ServicePort, Transport};
pub use crate::snapshot::{Generation, NodeInfo, Snapshot};
