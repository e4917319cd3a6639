//! The rules of the Multi-Cluster Services API: many exports become one import.
//!
//! Pure, and the same in every cluster: whoever sees the same exports gets the same
//! import, without asking anybody.
//!
//! Spec: KEP-1645 and its specification.md; mcs-api v0.5.0.
//!
//! # Flow
//!
//! 1. [`condition`]: the conditions of ServiceExport and ServiceImport, with the reasons
//!    of the specification.
//! 2. [`merge`]: exports of one service to one import, with the conflicts.
//! 3. [`vip`]: ClusterSetIPs, stable for the life of an import.

pub mod condition;

pub mod merge;

pub mod vip;

pub use self::condition::{Condition, ConditionStatus, ConflictReason};
pub use self::merge::{Conflict, Import, ImportPort, merge};
pub use self::vip::{VipPool, VipRange, VipRangeInvalid};
