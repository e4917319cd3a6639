//! The objects that we have made, as the server has them.
//!
//! Plans of writes are compared with these, so a state is given only when every kind has
//! been listed: an object that is merely not seen yet would be written again, and one
//! that has become superfluous while we were away would stay. A kind that the server does
//! not serve has no objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::Client;
use serde_json::Value;

use crate::apply::{FIELD_MANAGER, MANAGED_LABEL};
use crate::source::cache::Cache;
pub use crate::source::kinds::ManagedKind;
use crate::source::kinds::{Scope, Watched};
use crate::source::{Feed, Pending};

/// Our objects in a cluster, watched. Dropping it ends the watch.
pub struct Observed {
    feed: Feed,
}

impl Observed {
    /// Starts watchers for the objects of these kinds that have our label
    /// ([`MANAGED_LABEL`]), in every namespace. Errors of the server are retried for ever
    /// and logged; what is waited for is in [`Observed::pending`].
    pub fn watch(client: &Client, kinds: &[ManagedKind]) -> Self {
        let scope =
            |kind: &ManagedKind| Scope { watched: Watched::Managed(*kind), namespace: "".into() };
        let scopes = kinds.iter().map(scope).collect();
        let ours = |_| Some(format!("{MANAGED_LABEL}={FIELD_MANAGER}"));
        Self { feed: Feed::watch(client, scopes, BTreeMap::new(), ours) }
    }

    /// The next whole state, in order of kind, namespace and name: the objects without
    /// `managedFields` and `resourceVersion`. `None` when every watcher has ended, which
    /// only a panic brings.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing: what was taken is in the cache.
    pub async fn next(&mut self) -> Option<Vec<Arc<Value>>> {
        self.feed.next(Cache::documents).await
    }

    /// The kinds that the first state waits for, or that are being listed again.
    pub fn pending(&self) -> Vec<Pending> {
        self.feed.pending()
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("pending", &self.pending()).finish_non_exhaustive()
    }
}
