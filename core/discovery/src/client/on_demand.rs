//! How the request path asks for services.
//!
//! [`OnDemand::touch`] is for every request: one hash lookup, and a write only if the
//! service was not used since the last sweep, so workers do not fight over a cache line.
//! [`OnDemand::want`] is for the first request to a service.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use isthmus_model::ServiceKey;
use tokio::sync::{mpsc, oneshot};

use crate::subscriber::names::UsageTable;

/// Asks for services by name; clones are for other workers.
#[derive(Clone)]
pub struct OnDemand {
    scope: Scope,
    usage: Usage,
    wants: mpsc::Sender<WantRequest>,
    timeout: Duration,
}

/// Whether a service may be used from the snapshot right away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The name is asked for and answered: what the snapshot says of it is complete. Its
    /// use is noted.
    Known,
    /// The name is not asked for; call [`OnDemand::want`].
    Unknown,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// There is no such service.
    Absent,
    /// The service is in the snapshot; load it again.
    Known,
    /// There was no answer in time, or too many services are asked for.
    Timeout,
}

/// Whether this node asks for services at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Asked,
    Everything,
}

/// The flags of the known names, replaced as a whole when the names change.
#[derive(Clone, Default)]
pub(crate) struct Usage(Arc<ArcSwap<UsageTable>>);

/// One wish on its way to the task.
#[derive(Debug)]
pub(crate) struct WantRequest {
    pub(crate) name: ServiceKey,
    pub(crate) reply: oneshot::Sender<Wanted>,
}

impl OnDemand {
    pub(crate) fn new(
        scope: Scope,
        usage: Usage,
        wants: mpsc::Sender<WantRequest>,
        timeout: Duration,
    ) -> Self {
        Self { scope, usage, wants, timeout }
    }

    /// Notes the use of a service, and says whether it must be asked for first.
    ///
    /// Nodes that hold every service always get [`Touch::Known`].
    pub fn touch(&self, service: &ServiceKey) -> Touch {
        if self.scope == Scope::Everything {
            return Touch::Known;
        }
        match self.usage.0.load().get(service) {
            Some(used) => {
                if !used.load(Ordering::Relaxed) {
                    used.store(true, Ordering::Relaxed);
                }
                Touch::Known
            }
            None => Touch::Unknown,
        }
    }

    /// Asks for a service and waits until the snapshot has it, for a limited time.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the service stays asked for.
    pub async fn want(&self, service: &ServiceKey) -> Wanted {
        let (reply, answer) = oneshot::channel();
        let request = WantRequest { name: service.clone(), reply };
        // A full queue means that the task is far behind: better to say so at once.
        if self.wants.try_send(request).is_err() {
            return Wanted::Timeout;
        }
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(wanted)) => wanted,
            Ok(Err(_)) | Err(_) => Wanted::Timeout,
        }
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Usage {
    pub(crate) fn replace(&self, table: HashMap<ServiceKey, Arc<std::sync::atomic::AtomicBool>>) {
        self.0.store(Arc::new(table));
    }
}
