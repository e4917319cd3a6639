//! Objects as the user wrote them: YAML text to a JSON value to one serde type for each
//! kind.
//!
//! The types know every field of the published schemas, also those that nothing here
//! reads, so that a manifest that Kubernetes takes is taken here, and a field that is
//! not in the schema is an error that names it. No type of this module passes
//! `validate`.

pub(crate) mod backend_tls;
pub(crate) mod core;
pub(crate) mod document;
pub(crate) mod gateway;
pub(crate) mod mesh;
pub(crate) mod metadata;
pub(crate) mod parameters;
pub(crate) mod route;
pub(crate) mod yaml;

use serde::de::IgnoredAny;

/// A field that the schema has and nothing here reads.
pub(crate) type Ignored = Option<IgnoredAny>;
