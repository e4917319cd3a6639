//! One cluster's roles as processes: all of them in one, or each on its own.
//!
//! The controller side (authority, controller, discovery, DNS, telemetry, admin) runs on
//! one runtime; gateways and sidecars run on worker threads of their own.
//!
//! # Flow
//!
//! 1. [`process`]: starts what was selected in order, waits for a signal, drains.
//! 2. [`identity`]: each role gets its SVID from the authority, and trusts bundles.
//! 3. [`control`]: authority, configuration, controller, discovery; [`created`] and
//!    [`last_good`]: what it remembers of manifests.
//!    In a cluster of Kubernetes [`kubernetes`] takes the place of manifests.
//! 4. [`data_plane`]: gateways, sidecars; [`names`]: DNS.
//! 5. [`ready`]: when the process takes traffic.
//! 6. [`board`]: what `isthmus status` and `isthmus explain` are answered from.

mod board;

mod control;

mod created;

mod data_plane;

mod explain;

mod identity;

mod kubernetes;

mod last_good;

mod names;

mod ports;

mod process;

mod ready;

use isthmus_telemetry::{Colour, LogOptions, init_logs};

use crate::settings::Settings;

/// Which roles a process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All roles of the settings.
    All,
    /// The authority.
    Ca,
    /// The controller.
    Controller,
    /// DNS.
    Dns,
    /// Ingress and east-west.
    Gateway,
    /// The sidecar of this name.
    Sidecar(String),
}

impl Selection {
    /// The name of the process, for telemetry and logs.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::All => "isthmus".into(),
            Self::Ca => "isthmus-ca".into(),
            Self::Controller => "isthmus-controller".into(),
            Self::Dns => "isthmus-dns".into(),
            Self::Gateway => "isthmus-gateway".into(),
            Self::Sidecar(name) => format!("isthmus-sidecar-{name}"),
        }
    }
}

/// Runs the selected roles until a signal ends them.
pub(crate) fn run(settings: Settings, selection: Selection) -> anyhow::Result<()> {
    init_logs(&LogOptions {
        format: settings.log.format.into(),
        filter: settings.log.filter.clone(),
        colour: Colour::Auto,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(process::run(settings, selection))
}

/// A number that no other process has, for seeds of choices that are no secrets.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Threads of the controller side.
const CONTROL_THREADS: usize = 2;
