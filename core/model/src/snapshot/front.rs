//! The listeners that share a bound address, and the routes attached to them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::decision::{RequestHead, Step, Trail};
use crate::gateway::{Listener, ListenerFamily};
use crate::hosts::HostTable;
use crate::route::{RouteParent, StreamRoute};
use crate::table::{Matched, RouteTable};

/// One bound address of the ingress role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontKey {
    /// The address; `None` is the address of the role.
    pub address: Option<IpAddr>,
    /// The bound port.
    pub port: u16,
    /// Whether the port is of UDP, which shares no number space with TCP.
    pub transport: FrontTransport,
}

/// The transport of a bound address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontTransport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The listeners that share a bound address.
#[derive(Debug)]
pub struct Front {
    /// What is spoken there; all listeners agree.
    pub family: ListenerFamily,
    listeners: HostTable<ListenerEntry>,
    /// Every listener, in order of name.
    names: Vec<Arc<Listener>>,
}

/// One listener with the routes attached to it.
#[derive(Debug)]
pub struct ListenerEntry {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its HTTP and gRPC routes.
    pub routes: RouteTable,
    /// Its TCP, TLS or UDP routes, by hostname; the oldest of each.
    streams: HostTable<Arc<StreamRoute>>,
}

impl ListenerEntry {
    fn new(listener: &Arc<Listener>) -> Self {
        let listener = Arc::clone(listener);
        Self { listener, routes: RouteTable::default(), streams: HostTable::default() }
    }

    /// The route of a connection with this server name; TCP and UDP have the empty one.
    pub fn stream_route(&self, server_name: &str) -> Option<&Arc<StreamRoute>> {
        self.streams.best(server_name)
    }
}

impl Front {
    /// The listener for a host: the one with the most specific hostname.
    pub fn listener(&self, host: &str) -> Option<&ListenerEntry> {
        self.listeners.best(host)
    }

    /// Every listener, ordered by name.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.names
    }

    /// The listener and the rule for a request.
    pub fn route(&self, head: &RequestHead<'_>, trail: &mut Trail) -> Routed<'_> {
        let Some(entry) = self.listener(head.host) else {
            return Routed::NoListener;
        };
        trail.note(|| Step {
            stage: "listener",
            object: format!("Gateway listener {}", entry.listener.name),
            outcome: match &entry.listener.hostname {
                Some(pattern) => format!("hostname {pattern} covers {}", head.host),
                None => "has no hostname and takes every host".into(),
            },
        });
        match entry.routes.find(head, trail) {
            Some(matched) => Routed::Rule { listener: &entry.listener, matched },
            None => Routed::NoRule { listener: &entry.listener },
        }
    }
}

/// Where a request to a front goes.
#[derive(Debug, Clone, Copy)]
pub enum Routed<'s> {
    /// No listener takes the host.
    NoListener,
    /// The listener has no rule for the request.
    NoRule {
        /// The listener.
        listener: &'s Arc<Listener>,
    },
    /// This rule.
    Rule {
        /// The listener.
        listener: &'s Arc<Listener>,
        /// The rule.
        matched: &'s Matched,
    },
}

/// Fronts while they are being built.
pub(super) struct Fronts {
    fronts: BTreeMap<FrontKey, Front>,
    /// Where each listener ended up.
    places: HashMap<String, Vec<FrontKey>>,
}

impl Fronts {
    /// Older listeners go first: a later one with the same hostname, or with another
    /// protocol on the same address, gets no place.
    pub(super) fn build(mut listeners: Vec<Arc<Listener>>) -> Self {
        listeners.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut fronts = Self { fronts: BTreeMap::new(), places: HashMap::new() };
        for listener in listeners {
            let port = listener.bind_port;
            let transport = match listener.protocol.family() {
                ListenerFamily::Udp => FrontTransport::Udp,
                ListenerFamily::Http | ListenerFamily::Tcp | ListenerFamily::Tls => {
                    FrontTransport::Tcp
                }
            };
            if listener.addresses.is_empty() {
                fronts.place(FrontKey { address: None, port, transport }, &listener);
            }
            for address in &listener.addresses {
                fronts.place(FrontKey { address: Some(*address), port, transport }, &listener);
            }
        }
        fronts
    }

    fn place(&mut self, key: FrontKey, listener: &Arc<Listener>) {
        let front = self.fronts.entry(key).or_insert_with(|| Front {
            family: listener.protocol.family(),
            listeners: HostTable::default(),
            names: Vec::new(),
        });
        if front.family != listener.protocol.family() {
            return;
        }
        let mut placed = false;
        front.listeners.slot(listener.hostname.as_ref(), || {
            placed = true;
            ListenerEntry::new(listener)
        });
        if placed {
            front.names.push(Arc::clone(listener));
            self.places.entry(listener.name.clone()).or_default().push(key);
        }
    }

    pub(super) fn attach(&mut self, listener: &str, mut add: impl FnMut(&mut ListenerEntry)) {
        for key in self.places.get(listener).into_iter().flatten() {
            let Some(front) = self.fronts.get_mut(key) else { continue };
            let Some(found) = front.names.iter().find(|l| l.name == listener) else { continue };
            let hostname = found.hostname.clone();
            let entry = front.listeners.slot(hostname.as_ref(), || ListenerEntry::new(found));
            add(entry);
        }
    }

    /// Attaches a route where no older one is.
    pub(super) fn attach_stream(&mut self, route: &Arc<StreamRoute>) {
        for parent in &route.parents {
            let RouteParent::Listener { listener, hostnames } = parent else { continue };
            self.attach(listener, |entry| {
                if hostnames.is_empty() {
                    entry.streams.slot(None, || Arc::clone(route));
                }
                for hostname in hostnames {
                    entry.streams.slot(Some(hostname), || Arc::clone(route));
                }
            });
        }
    }

    pub(super) fn finish(mut self) -> BTreeMap<FrontKey, Front> {
        for front in self.fronts.values_mut() {
            front.listeners.for_each_mut(|entry| entry.routes.finish());
        }
        self.fronts
    }
}
