//! Who serves which listener, and which routes are attached where.
//!
//! Made once for each state, so that what one node may see costs as much as it sees and
//! not as much as there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_model::route::RouteParent;
use isthmus_model::{Resource, ServiceKey, SpiffeId};

use super::state::Entry;

/// The references between the resources of one state, from their targets' side.
#[derive(Debug, Default)]
pub(crate) struct Index {
    listeners: BTreeMap<Option<SpiffeId>, Vec<Arc<Entry>>>,
    listener_routes: BTreeMap<String, Vec<Arc<Entry>>>,
    service_routes: BTreeMap<ServiceKey, Vec<Arc<Entry>>>,
}

impl Index {
    /// Indexes the resources of a state, each of which comes once.
    pub(crate) fn of<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>) -> Self {
        let mut index = Self::default();
        entries.for_each(|entry| index.add(entry));
        index
    }

    /// The listeners of one server; `None` are those that the ingress of the cluster serves.
    pub(crate) fn listeners_of(&self, server: Option<&SpiffeId>) -> &[Arc<Entry>] {
        // The key is cheap to copy: it is shared text.
        self.listeners.get(&server.cloned()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The listeners that name a server, by server.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&SpiffeId, &[Arc<Entry>])> {
        let named = |(server, listeners)| Option::zip(Option::as_ref(server), Some(listeners));
        self.listeners.iter().filter_map(named).map(|(server, all)| (server, Vec::as_slice(all)))
    }

    /// The routes of every kind that are attached to a listener.
    pub(crate) fn routes_at(&self, listener: &str) -> &[Arc<Entry>] {
        self.listener_routes.get(listener).map(Vec::as_slice).unwrap_or_default()
    }

    /// The HTTPRoutes and GRPCRoutes that are attached to a service.
    pub(crate) fn routes_of(&self, service: &ServiceKey) -> &[Arc<Entry>] {
        self.service_routes.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, entry: &Arc<Entry>) {
        match entry.resource.as_ref() {
            Resource::HttpRoute(route) => self.add_route(entry, &route.parents),
            Resource::Listener(listener) => {
                let served = self.listeners.entry(listener.served_by.clone()).or_default();
                served.push(Arc::clone(entry));
            }
            Resource::StreamRoute(route) => self.add_route(entry, &route.parents),
            Resource::BackendTls(_)
            | Resource::Certificate(_)
            | Resource::Endpoints(_)
            | Resource::Export(_)
            | Resource::Peer(_)
            | Resource::PeerAuthentication(_)
            | Resource::Service(_)
            | Resource::TrustBundle(_) => {}
        }
    }

    fn add_route(&mut self, entry: &Arc<Entry>, parents: &[RouteParent]) {
        for parent in parents {
            let routes = match parent {
                RouteParent::Listener { listener, .. } => {
                    self.listener_routes.entry(listener.clone()).or_default()
                }
                // Sidecars do not hold routes of streams.
                RouteParent::Service { .. }
                    if matches!(entry.resource.as_ref(), Resource::StreamRoute(_)) =>
                {
                    continue;
                }
                RouteParent::Service { service, .. } => {
                    self.service_routes.entry(service.clone()).or_default()
                }
            };
            // A route may name one parent several times, once for each port or hostname.
            if !routes.last().is_some_and(|last| Arc::ptr_eq(last, entry)) {
                routes.push(Arc::clone(entry));
            }
        }
    }
}
