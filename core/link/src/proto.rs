//! The link protocol without I/O: codec, session and transport selection.
//!
//! Nothing here reads a clock, a socket or a random source; the shells one level up pass
//! `now`, bytes and a seed in, and drain outputs. `PROTOCOL.md` beside this crate
//! describes the bytes; a test compares its examples with what this code writes.
//!
//! Order of the data: [`wire`] (fields), [`frame`] (control stream), [`header`]
//! (application streams, datagrams), [`version`], [`estimate`], [`session`] (one
//! connection), [`backoff`], [`selector`] (one lane to a peer), [`exercise`] (what the
//! fuzz targets run).

pub mod wire;

pub mod frame;

pub mod header;

pub mod version;

pub mod estimate;

pub mod session;

pub mod backoff;

pub mod selector;

pub mod exercise;
