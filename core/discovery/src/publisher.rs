//! The controller's side, sans-IO: what is published, who may see it, and what each
//! subscriber still lacks.
//!
//! # States
//!
//! A [`State`] is immutable: one generation with the JSON and the version of every
//! resource. There is one [`Subscription`] for each stream. It compares what the role may
//! see of the latest state with what the subscriber has acknowledged, sends the
//! difference, and waits for the answer before it compares again. So there is at most one
//! delta in flight, a slow subscriber costs one delta and not a queue, and changes that
//! come meanwhile collapse into the next comparison.
//!
//! A publisher without a state serves nothing: an empty state at the start of a controller
//! would make every proxy drop its configuration.

pub(crate) mod index;

pub(crate) mod state;

pub(crate) mod visibility;

pub(crate) mod subscription;

pub(crate) use state::{Entry, State};
