//! Whether every address of the demo can be bound, before anything is started.
//!
//! The addresses are read from the settings files as text, whatever their meaning, so
//! that the message can name the file and the field to change.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::example::SETTINGS;
use super::scenario::{self, Scenario};

/// An address that will be bound, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The file, below the folder of the demo.
    pub(crate) file: String,
    /// The field in the file.
    pub(crate) field: String,
    /// The address.
    pub(crate) address: SocketAddr,
}

/// Checks every address of the demo.
///
/// # Errors
///
/// One message that names every address that cannot be bound.
pub(crate) fn check(folder: &Path, scenario: &Scenario) -> Result<()> {
    let mut listeners = of_scenario(scenario);
    for cluster in &scenario.clusters {
        let file = format!("{}/{SETTINGS}", cluster.name);
        let path = folder.join(&file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let settings = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is not valid", path.display()))?;
        listeners.extend(of_settings(&file, &settings));
    }
    let problems: Vec<String> = listeners.iter().filter_map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    bail!("the demo cannot have these addresses:\n  {}", problems.join("\n  "))
}

/// The addresses of the sample applications and of the wide area network.
fn of_scenario(scenario: &Scenario) -> Vec<Listener> {
    let file = scenario::FILE.to_owned();
    let mut found = Vec::new();
    for (index, cluster) in scenario.clusters.iter().enumerate() {
        for (at, app) in cluster.apps.iter().enumerate() {
            let field = format!("clusters[{index}].apps[{at}].listen");
            found.push(Listener { file: file.clone(), field, address: app.listen });
        }
    }
    for (index, path) in scenario.paths.iter().enumerate() {
        let field = format!("paths[{index}].listen");
        found.push(Listener { file: file.clone(), field, address: path.listen });
    }
    found
}

/// The addresses that a cluster binds: every `ip:port` of its settings, and the ports of
/// its ingress.
fn of_settings(file: &str, settings: &Value) -> Vec<Listener> {
    let mut found = Vec::new();
    collect(file, "", settings, &mut found);
    let ingress = &settings["ingress"];
    let address: Option<IpAddr> = ingress["address"].as_str().and_then(|text| text.parse().ok());
    if let (Some(address), Some(ports)) = (address, ingress["ports"].as_object())
        && ingress["enabled"] != Value::Bool(false)
    {
        for (port, bound) in ports {
            let Some(bound) = bound.as_u64().and_then(|bound| u16::try_from(bound).ok()) else {
                continue;
            };
            let field = format!("ingress.ports.{port}");
            let address = SocketAddr::new(address, bound);
            found.push(Listener { file: file.to_owned(), field, address });
        }
    }
    found
}

fn collect(file: &str, field: &str, value: &Value, found: &mut Vec<Listener>) {
    match value {
        Value::String(text) => {
            if let Ok(address) = text.parse() {
                found.push(Listener { file: file.to_owned(), field: field.to_owned(), address });
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect(file, &format!("{field}[{index}]"), value, found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                // The servers that DNS asks are not ours to bind.
                if name != "upstreams" {
                    let dot = if field.is_empty() { "" } else { "." };
                    collect(file, &format!("{field}{dot}{name}"), value, found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Binds the address for a moment, with the options that the roles use.
fn problem(listener: &Listener) -> Option<String> {
    let Listener { file, field, address } = listener;
    let tcp = TcpListener::bind(address).map(drop);
    let udp = if takes_udp(field) { UdpSocket::bind(address).map(drop) } else { Ok(()) };
    let (transport, error) = match (tcp, udp) {
        (Ok(()), Ok(())) => return None,
        (Err(error), _) => ("TCP", error),
        (Ok(()), Err(error)) => ("UDP", error),
    };
    let kind = error.kind();
    let reason = if kind == ErrorKind::AddrInUse {
        "is in use by another process".to_owned()
    } else if kind == ErrorKind::AddrNotAvailable {
        "is not an address of this machine; add it to the loopback interface".to_owned()
    } else if kind == ErrorKind::PermissionDenied {
        "may not be bound by this user; ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
    } else {
        format!("cannot be bound: {error}")
    };
    Some(format!("{transport} {address} {reason} (examples/demo/{file}, {field})"))
}

/// Whether a field's address is bound for UDP too.
fn takes_udp(field: &str) -> bool {
    matches!(field, "eastwest.link" | "dns.address") || field.starts_with("paths[")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_settings_is_found_with_its_field() {
        let settings = serde_saphyr::from_str(
            "eastwest: {link: '127.0.0.1:15443'}\n\
             ingress: {address: 127.0.0.1, ports: {80: 8080}}\n\
             dns: {upstreams: ['127.0.0.53:53']}\n\
             telemetry: {otlp: 'http://127.0.0.1:4317'}\n\
             sidecars: [{tcp: [{listen: '127.0.0.1:5432'}]}]",
        )
        .unwrap();
        let found: Vec<_> = of_settings("a", &settings)
            .into_iter()
            .map(|listener| (listener.field, listener.address.port()))
            .collect();
        let want = [
            ("eastwest.link", 15443),
            ("sidecars[0].tcp[0].listen", 5432),
            ("ingress.ports.80", 8080),
        ];
        assert_eq!(found, want.map(|(field, port)| (field.to_owned(), port)));
    }

    #[test]
    fn a_taken_port_is_named_with_file_and_field() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = Listener {
            file: "onprem/cluster.yaml".to_owned(),
            field: "telemetry.admin".to_owned(),
            address: taken.local_addr().unwrap(),
        };
        let message = problem(&listener).unwrap();
        assert!(message.contains("in use by another process (examples/demo/onprem/cluster.yaml, "));
        drop(taken);
        assert_eq!(problem(&listener), None);
    }
}
