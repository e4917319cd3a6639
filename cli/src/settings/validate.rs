//! Rules that settings meet beyond the types of their fields.
//!
//! Each rule is a small function that adds to a list, so that one run of `--check` shows
//! everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use isthmus_dns::forward::UPSTREAMS_MAX;
use isthmus_model::name::SYSTEM_NAMESPACE;

use super::{Problem, Settings, SidecarSettings, duration};

/// Everything that is wrong with the settings; empty when they are valid.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let mut found = Found::default();
    process(settings, &mut found);
    ingress(settings, &mut found);
    authority(settings, &mut found);
    telemetry(settings, &mut found);
    sidecars(settings, &mut found);
    listeners(settings, &mut found);
    found.problems
}

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(Problem::new(field, reason));
    }

    fn number<T: PartialOrd + Display>(&mut self, field: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            let (low, high) = range.into_inner();
            self.add(field, format!("{value} is not from {low} to {high}"));
        }
    }

    fn time(&mut self, field: &str, value: Duration, range: RangeInclusive<Duration>) {
        if !range.contains(&value) {
            let [value, low, high] =
                [&value, range.start(), range.end()].map(|time| duration::format(*time));
            self.add(field, format!("{value} is not from {low} to {high}"));
        }
    }
}

fn process(settings: &Settings, found: &mut Found) {
    found.number("workers", settings.workers, 0..=WORKERS_MAX);
    found.time("drain.delay", settings.drain.delay, Duration::ZERO..=10 * MINUTE);
    found.time("drain.deadline", settings.drain.deadline, Duration::ZERO..=HOUR);
    if settings.dns.upstreams.len() > UPSTREAMS_MAX {
        let count = settings.dns.upstreams.len();
        found.add(
            "dns.upstreams",
            format!("has {count} entries, at most {UPSTREAMS_MAX} are allowed"),
        );
    }
    for (index, upstream) in settings.dns.upstreams.iter().enumerate() {
        let field = format!("dns.upstreams[{index}]");
        if upstream.port() == 0 {
            found.add(field, "port 0 is no port");
        } else if settings.dns.enabled && *upstream == settings.dns.address {
            found.add(field, "is dns.address itself, so questions would go in a circle");
        }
    }
}

fn ingress(settings: &Settings, found: &mut Found) {
    let limits = &settings.ingress.limits;
    let field = |name: &str| format!("ingress.limits.{name}");
    found.number(&field("headerBytes"), limits.header_bytes, 8192..=1024 * 1024);
    found.number(&field("headerCount"), limits.header_count, 1..=1000);
    found.number(&field("streams"), limits.streams, 1..=10_000);
    found.number(&field("connections"), limits.connections, 1..=1_000_000);
    found.time(&field("headTimeout"), limits.head_timeout, MILLISECOND..=HOUR);
    found.time(&field("idleTimeout"), limits.idle_timeout, MILLISECOND..=DAY);
    found.time(&field("bodyTimeout"), limits.body_timeout, MILLISECOND..=DAY);
    for (port, bound) in &settings.ingress.ports {
        if *port == 0 || *bound == 0 {
            found.add(format!("ingress.ports.{port}"), "port 0 is no port");
        }
    }
}

/// What [`isthmus_certs::AuthorityOptions`] asks for, said with the names of the settings
/// and before anything is started.
fn authority(settings: &Settings, found: &mut Found) {
    let ca = &settings.ca;
    found.time("ca.svidLifetime", ca.svid_lifetime, Duration::from_secs(5)..=7 * DAY);
    if ca.user_intermediate.is_some() {
        return;
    }
    if ca.intermediate_lifetime < 2 * ca.svid_lifetime {
        found.add("ca.intermediateLifetime", "must be at least twice ca.svidLifetime");
    }
    if ca.root_lifetime > 36_500 * DAY || ca.intermediate_lifetime > ca.root_lifetime / 3 {
        let reason = "must be at least three times ca.intermediateLifetime, at most 36500d";
        found.add("ca.rootLifetime", reason);
    }
    if ca.rotation_overlap > ca.root_lifetime / 6 {
        found.add("ca.rotationOverlap", "must be at most a sixth of ca.rootLifetime");
    }
}

fn telemetry(settings: &Settings, found: &mut Found) {
    let telemetry = &settings.telemetry;
    // Also refuses what is not a number.
    if !(0.0..=1.0).contains(&telemetry.sampling) {
        let sampling = telemetry.sampling;
        found.add("telemetry.sampling", format!("{sampling} is not from 0.0 to 1.0"));
    }
    if !telemetry.admin.ip().is_loopback() {
        let reason = "is not a loopback address; the admin endpoint has no other guard";
        found.add("telemetry.admin", reason);
    }
    if let Some(otlp) = &telemetry.otlp {
        let uri = otlp.parse::<http::Uri>().ok();
        let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        if uri.is_none() {
            let reason = "is not of the form http://host:port; TLS comes from the mesh";
            found.add("telemetry.otlp", reason);
        }
    }
    if settings.log.filter.trim().is_empty() {
        found.add("log.filter", "is empty; `off` turns the log off");
    }
}

fn sidecars(settings: &Settings, found: &mut Found) {
    let mut names = BTreeSet::new();
    for (index, sidecar) in settings.sidecars.iter().enumerate() {
        let field = |name: &str| format!("sidecars[{index}].{name}");
        if !names.insert((&sidecar.namespace, &sidecar.name)) {
            let reason = format!("{} appears twice", sidecar.full_name());
            found.add(field("name"), reason);
        }
        if sidecar.namespace.as_str() == SYSTEM_NAMESPACE {
            let reason = format!("{SYSTEM_NAMESPACE} is reserved for the roles of the cluster");
            found.add(field("namespace"), reason);
        }
        if sidecar.address.is_unspecified() || sidecar.address.is_multicast() {
            found.add(field("address"), format!("{} is no workload's address", sidecar.address));
        }
        if sidecar.mesh.ip().is_unspecified() {
            let reason = "must be an address that other workloads can connect to";
            found.add(field("mesh"), reason);
        }
        if sidecar.ports.contains(&0) {
            found.add(field("ports"), "port 0 is no port");
        }
        own_ports(sidecar, &field, found);
        let clash = settings.sidecars[..index].iter().find(|other| overlap(other, sidecar));
        if let Some(other) = clash {
            let reason = format!(
                "sidecar {} has the same address and ports, so an endpoint would have two identities",
                other.full_name()
            );
            found.add(field("address"), reason);
        }
    }
}

/// What only the application of the sidecar may reach.
fn own_ports(sidecar: &SidecarSettings, field: &dyn Fn(&str) -> String, found: &mut Found) {
    let reason = "is not a loopback address; whoever reaches it has the workload's identity";
    if sidecar.outbound.is_some_and(|address| !address.ip().is_loopback()) {
        found.add(field("outbound"), reason);
    }
    for (index, tcp) in sidecar.tcp.iter().enumerate() {
        if !tcp.listen.ip().is_loopback() {
            found.add(field(&format!("tcp[{index}].listen")), reason);
        }
        if tcp.port == 0 {
            found.add(field(&format!("tcp[{index}].port")), "port 0 is no port");
        }
    }
}

/// Whether one endpoint could be of both; one that names the port goes before one that
/// takes every port.
fn overlap(one: &SidecarSettings, other: &SidecarSettings) -> bool {
    let same = match (one.ports.is_empty(), other.ports.is_empty()) {
        (true, true) => true,
        (false, false) => one.ports.iter().any(|port| other.ports.contains(port)),
        (true, false) | (false, true) => false,
    };
    one.address == other.address && same
}

/// No two enabled listeners may have one address.
fn listeners(settings: &Settings, found: &mut Found) {
    let mut known: BTreeMap<u16, Vec<(String, IpAddr)>> = BTreeMap::new();
    for (field, address) in listening(settings) {
        if address.port() == 0 {
            found.add(field, "port 0 is no port that others could know");
            continue;
        }
        let others = known.entry(address.port()).or_default();
        let clash = others.iter().find(|(_, ip)| {
            *ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified()
        });
        if let Some((other, _)) = clash {
            found.add(field.clone(), format!("{address} is also {other}"));
        }
        others.push((field, address.ip()));
    }
}

/// The addresses that are bound, with their fields.
fn listening(settings: &Settings) -> Vec<(String, SocketAddr)> {
    let mut bound = Vec::new();
    let mut add = |field: &str, address| bound.push((field.to_owned(), address));
    if settings.eastwest.enabled {
        add("eastwest.link", settings.eastwest.link);
        add("eastwest.mesh", settings.eastwest.mesh);
    }
    if settings.controller.enabled {
        add("controller.discovery", settings.controller.discovery);
        add("controller.federation", settings.controller.federation);
    }
    if settings.dns.enabled {
        add("dns.address", settings.dns.address);
    }
    add("telemetry.metrics", settings.telemetry.metrics);
    add("telemetry.ready", settings.telemetry.ready);
    add("telemetry.admin", settings.telemetry.admin);
    if settings.ingress.enabled {
        for (port, to) in settings.ingress.ports.iter().filter(|(_, to)| **to != 0) {
            let address = SocketAddr::new(settings.ingress.address, *to);
            add(&format!("ingress.ports.{port}"), address);
        }
    }
    for (index, sidecar) in settings.sidecars.iter().enumerate() {
        add(&format!("sidecars[{index}].mesh"), sidecar.mesh);
        for (name, address) in [("outbound", sidecar.outbound), ("inbound", sidecar.inbound)] {
            if let Some(address) = address {
                add(&format!("sidecars[{index}].{name}"), address);
            }
        }
        for (number, tcp) in sidecar.tcp.iter().enumerate() {
            add(&format!("sidecars[{index}].tcp[{number}].listen"), tcp.listen);
        }
    }
    bound
}

const WORKERS_MAX: usize = 1024;
const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
