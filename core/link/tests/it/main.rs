//! Links between real gateways on loopback, with real certificates and sockets.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
#![allow(missing_docs, unreachable_pub, unused_crate_dependencies)]

mod api_limits;
mod api_links;
mod api_transports;
mod corpus;
mod gateway;
mod protocol_md;
mod relay;
