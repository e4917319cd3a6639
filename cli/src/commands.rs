//! Commands that look at a cluster, and those that need none.

pub(crate) mod admin;

pub(crate) mod ca;

pub(crate) mod check;

pub(crate) mod explain;

pub(crate) mod status;

pub(crate) mod table;

pub(crate) mod version;
