//! Which user of this machine may be which workload.

use std::collections::{BTreeMap, BTreeSet};

use isthmus_model::Label;

/// A namespace and a service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// The namespace.
    pub namespace: Label,
    /// The service account.
    pub service_account: Label,
}

/// The workloads of each user id; whoever is not in it gets nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadRegistry {
    users: BTreeMap<u32, BTreeSet<Workload>>,
}

impl WorkloadRegistry {
    /// A registry that allows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets processes of a user be a workload.
    #[must_use]
    pub fn with(mut self, uid: u32, namespace: Label, service_account: Label) -> Self {
        self.users.entry(uid).or_default().insert(Workload { namespace, service_account });
        self
    }

    /// Whether a user may be a workload.
    pub fn allows(&self, uid: u32, workload: &Workload) -> bool {
        self.users.get(&uid).is_some_and(|workloads| workloads.contains(workload))
    }
}
