//! The user's APIs: Kubernetes, Gateway API, MCS and Istio objects and our ClusterLink,
//! read from a source, validated one by one, and translated to the model.
//!
//! One broken object is rejected alone, with an error that names file, document, object
//! and field; its last good version stays. Sources differ in how documents come, and in
//! nothing else.
//!
//! # Flow
//!
//! 1. [`source`]: a directory (or a Kubernetes watch) gives [`SourceDocument`]s.
//! 2. `raw`: text to JSON within limits, and one serde type for each kind.
//! 3. `validate`: raw objects to [`objects`], with a [`ConfigError`] for each that fails.
//! 4. [`index`]: the one owner of the valid objects; keeps last good versions.
//! 5. [`translate`](mod@translate): [`Objects`] and a [`Context`] to resources and
//!    conditions. Pure.
//! 6. [`check`](mod@check): the same for manifests at rest.

pub mod source;

mod raw;

pub mod error;

pub mod kind;

mod validate;

pub mod objects;

pub mod index;

pub mod context;

pub mod translate;

pub mod check;

pub use crate::check::{Report, Warning, check, check_directory};
pub use crate::context::{ClusterSetIps, Context, IngressContext, Unmeshed, Workload};
pub use crate::error::{ConfigError, Origin, Reason};
pub use crate::index::{ApplyOutcome, Index, Notice};
pub use crate::kind::{Kind, ObjectKey, ObjectRef};
pub use crate::objects::{AccessRule, BundleSource, ClusterLink, NamePattern, Objects};
pub use crate::source::directory::{Directory, DirectoryError};
pub use crate::source::{Content, SourceDocument};
pub use crate::translate::{
    CONTROLLER_NAME, ConditionPart, ConditionType, GatewayStatus, ListenerStatus, LocalService,
    Named, ObjectCondition, ServedGateway, Translation, Translator, exported_services,
    local_services, served_gateways, translate,
};
