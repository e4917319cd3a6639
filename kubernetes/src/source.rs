//! The objects of a cluster as whole states, for the same index that a directory feeds.
//!
//! Every kind has a watcher of its own, one for each selected namespace. What they see
//! is trimmed and goes to one [`cache`], owned by the [`Source`]; the source gives a
//! whole state when something has changed. The first state waits until every kind that
//! the server serves has been listed once, because half a state looks like deletions. A
//! kind whose CRD is absent is asked for again and again and holds nothing up.

pub mod cache;

mod feed;

pub mod kinds;

mod pauses;

mod trim;

mod watch;

use std::collections::BTreeMap;
use std::fmt;

use isthmus_config::{Kind, SourceDocument};
use kube::Client;

use crate::source::cache::Cache;
pub(crate) use crate::source::feed::Feed;
pub use crate::source::kinds::DEFINITION;
use crate::source::kinds::Watched;
pub use crate::source::trim::{NodeState, PodState};

/// What is watched; the default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The namespaces whose objects are read; empty means all. Each has watchers of its
    /// own, so that rights in these namespaces are enough.
    pub namespaces: Vec<String>,
    /// Labels that a namespace must have for its objects to be read; empty means none.
    pub namespace_labels: BTreeMap<String, String>,
    /// Label selectors by kind, in the syntax of `kubectl -l`; the server applies them.
    pub object_labels: BTreeMap<Kind, String>,
}

/// Everything that is watched, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The objects, in order of their origin, for [`isthmus_config::Index`].
    pub documents: Vec<SourceDocument>,
    /// The pods that have not ended, in order of namespace and name.
    pub pods: Vec<PodState>,
    /// The nodes, in order of name.
    pub nodes: Vec<NodeState>,
    /// The kinds that the server does not serve.
    pub absent: Vec<Kind>,
    /// The release of the Gateway API whose definitions are installed, as they say it
    /// ([`crate::status::release`]); `None` where it is not known.
    pub bundle_version: Option<String>,
}

impl State {
    /// The objects of a named group. They are found by the order of the origins, which begin
    /// with the group, and without a look at any other object.
    pub fn of_group(&self, group: &str) -> &[SourceDocument] {
        let prefix = format!("{group}/");
        let first = self.documents.partition_point(|it| *it.origin.file < *prefix);
        let rest = self.documents.get(first..).unwrap_or_default();
        let end = rest.partition_point(|it| it.origin.file.starts_with(&prefix));
        rest.get(..end).unwrap_or_default()
    }
}

/// A kind that has not been listed yet, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The kind, with its namespace where namespaces are selected.
    pub kind: String,
    /// The last error, if there was one.
    pub error: Option<String>,
}

/// A cluster that is watched. Dropping it ends the watch.
pub struct Source {
    feed: Feed,
}

impl Source {
    /// Starts the watchers. Errors of the server are retried for ever and logged; what
    /// the source waits for is in [`Source::pending`].
    pub fn watch(client: &Client, selection: &Selection) -> Self {
        let labels = |watched: Watched| match watched {
            Watched::Config(kind) => selection.object_labels.get(&kind).cloned(),
            Watched::Definition | Watched::Managed(_) | Watched::Node | Watched::Pod => None,
        };
        let scopes = kinds::scopes(selection);
        Self { feed: Feed::watch(client, scopes, selection.namespace_labels.clone(), labels) }
    }

    /// The next state; `None` when every watcher has ended, which only a panic brings.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing: what was taken is in the cache.
    pub async fn next(&mut self) -> Option<State> {
        self.feed.next(Cache::state).await
    }

    /// The kinds that the first state waits for, or that are being listed again.
    pub fn pending(&self) -> Vec<Pending> {
        self.feed.pending()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isthmus_config::Origin;

    use super::*;

    #[test]
    fn a_group_is_found_with_all_of_its_objects_and_no_other() {
        let names = [
            "Service/shop/web",
            "a.b.c/Kind/shop/x",
            "a.b/Kind/shop/x",
            "a.b/Kind/shop/y",
            "a.b/Other/z",
            "a/Kind/shop/x",
        ];
        let document = |name: &&str| {
            SourceDocument::object(Origin::new(name, 0), Arc::new(serde_json::Value::Null))
        };
        let documents = names.iter().map(document).collect();
        let state = State { documents, ..State::default() };
        let of_group = |group: &str| {
            let found = state.of_group(group).iter();
            found.map(|document| document.origin.file.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of_group("a.b"), ["a.b/Kind/shop/x", "a.b/Kind/shop/y", "a.b/Other/z"]);
        assert_eq!(of_group("a"), ["a/Kind/shop/x"]);
        assert_eq!(of_group("z"), Vec::<String>::new());
        assert!(State::default().of_group("a").is_empty());
    }
}
