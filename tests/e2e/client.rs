//! Clients: one request, raw bytes, steady traffic, DNS questions.

mod call;
mod dns;
mod raw;
mod traffic;

pub(crate) use call::Call;
pub(crate) use dns::{Answer, ask};
pub(crate) use raw::exchange;
pub(crate) use traffic::Traffic;
