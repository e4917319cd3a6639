//! End-to-end tests: the real binary on loopback, seen as an operator and a client see it.
//!
//! Every test builds a world of its own in a network of its own (a free `127.a.b.0/24`)
//! and a temporary folder: real settings files, real manifests, real processes, and
//! sample applications on real sockets inside the test. Tests run in parallel. A world
//! that is dropped kills its processes and waits for them.
//!
//! # Flow
//!
//! 1. [`world`]: what a test asks for becomes files and processes.
//! 2. [`apps`]: the applications behind the proxies; [`relay`]: the network between
//!    clusters, which remembers every byte.
//! 3. [`client`]: requests, raw bytes, steady traffic, DNS questions.
//! 4. [`wait`]: the only way to wait: for a condition, up to a deadline.
//! 5. The modules with tests, by what they promise.

#![expect(clippy::unwrap_used, reason = "a world that cannot be built fails its test")]

mod apps;
mod client;
mod relay;
mod wait;
mod world;

mod failover;
mod federation;
mod ingress;
mod lifecycle;
mod links;
mod mesh;
mod operator;
mod reload;
mod rotation;
mod routes;
mod smuggling;
mod streaming;
mod streams;
mod tls;
