//! Namespace, Service, EndpointSlice, Secret, ConfigMap.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isthmus_model::{AppProtocol, Label, ServiceKey, ServicePort, Transport};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::values::{at_most, distinct, not_empty, one_of, port};
use super::{created, key};
use crate::error::{At, FieldError, Reason};
use crate::objects::{
    AddressType, ConfigMap, EndpointConditions, EndpointSlice, IpFamily, IpFamilyPolicy, Namespace,
    Secret, Service, ServiceType, SessionAffinity, SliceEndpoint, SlicePort, TlsSecret,
};
use crate::raw::core as raw;

pub(super) fn namespace(raw: raw::RawNamespace, seen: i64) -> Result<Namespace, FieldError> {
    let label = Label::new(&raw.metadata.name).at("metadata.name")?;
    Ok(Namespace {
        created: created(&raw.metadata, seen)?,
        name: isthmus_model::ObjectName::new(label.as_str()).at("metadata.name")?,
        labels: raw.metadata.labels.unwrap_or_default(),
    })
}

pub(super) fn service(raw: raw::RawService, seen: i64) -> Result<Service, FieldError> {
    let key = key(&raw.metadata)?;
    let name = Label::new(key.name.as_str()).at("metadata.name")?;
    let service_type = service_type(&raw.spec).at("spec")?;
    let ports = service_ports(&raw.spec.ports).at("spec")?;
    if ports.is_empty() && matches!(service_type, ServiceType::ClusterIp(_)) {
        return Err(FieldError::new("spec.ports", Reason::Missing));
    }
    Ok(Service {
        created: created(&raw.metadata, seen)?,
        service: ServiceKey::cluster(key.namespace.clone(), name),
        key,
        labels: raw.metadata.labels.unwrap_or_default(),
        annotations: raw.metadata.annotations.unwrap_or_default(),
        session_affinity: session_affinity(&raw.spec).at("spec")?,
        internal_traffic_policy: internal_traffic_policy(&raw.spec).at("spec")?,
        ip_families: ip_families(&raw.spec).at("spec")?,
        ip_family_policy: ip_family_policy(&raw.spec).at("spec")?,
        traffic_distribution: raw.spec.traffic_distribution,
        service_type,
        ports,
    })
}

fn service_type(spec: &raw::ServiceSpec) -> Result<ServiceType, FieldError> {
    let form = "ClusterIP, ExternalName, LoadBalancer or NodePort";
    let known = [
        ("ClusterIP", false),
        ("LoadBalancer", false),
        ("NodePort", false),
        ("ExternalName", true),
    ];
    let external = one_of("type", spec.kind.as_deref().unwrap_or("ClusterIP"), &known, form)?;
    if external {
        let name = spec.external_name.clone();
        let name = name.ok_or_else(|| FieldError::new("externalName", Reason::Missing))?;
        return Ok(ServiceType::ExternalName(name));
    }
    at_most("clusterIPs", &spec.cluster_ips, CLUSTER_IPS_MAX)?;
    let mut texts: Vec<(String, &str)> = Vec::new();
    for (index, text) in spec.cluster_ips.iter().enumerate() {
        texts.push((format!("clusterIPs[{index}]"), text));
    }
    if let Some(text) = spec.cluster_ip.as_deref() {
        let agrees = texts.first().is_none_or(|(_, first)| *first == text);
        if !agrees {
            return Err(FieldError::rule("clusterIP", "must equal the first of clusterIPs"));
        }
        if texts.is_empty() && !text.is_empty() {
            texts.push(("clusterIP".into(), text));
        }
    }
    if texts.first().is_some_and(|(_, text)| *text == "None") {
        return Ok(ServiceType::Headless);
    }
    let addresses = texts.iter().map(|(field, text)| {
        let address = text.parse::<IpAddr>();
        address.map_err(|_| Reason::value(text, "an IP address or None")).at(field)
    });
    Ok(ServiceType::ClusterIp(addresses.collect::<Result<_, _>>()?))
}

fn service_ports(raw: &[raw::ServicePort]) -> Result<Vec<ServicePort>, FieldError> {
    at_most("ports", raw, SERVICE_PORTS_MAX)?;
    let mut ports = Vec::with_capacity(raw.len());
    for (index, raw_port) in raw.iter().enumerate() {
        let at = |field: &str| format!("ports[{index}].{field}");
        let name = raw_port.name.as_deref().filter(|name| !name.is_empty());
        let name = name.map(Label::new).transpose().at(&at("name"))?;
        if name.is_none() && raw.len() > 1 {
            return Err(FieldError::new(at("name"), Reason::Missing));
        }
        ports.push(ServicePort {
            number: port(raw_port.port).at(&at("port"))?,
            transport: transport(raw_port.protocol.as_deref()).at(&at("protocol"))?,
            app: AppProtocol::detect(
                raw_port.app_protocol.as_deref(),
                name.as_ref().map(Label::as_str),
            ),
            app_protocol: raw_port.app_protocol.clone(),
            name,
        });
    }
    let names = ports.iter().filter_map(|port| port.name.clone());
    distinct(|index| format!("ports[{index}].name"), names)?;
    let numbers = ports.iter().map(|port| format!("{}/{:?}", port.number, port.transport));
    distinct(|index| format!("ports[{index}].port"), numbers)?;
    Ok(ports)
}

fn transport(text: Option<&str>) -> Result<Transport, FieldError> {
    let known = [("TCP", Transport::Tcp), ("UDP", Transport::Udp), ("SCTP", Transport::Sctp)];
    let text = text.filter(|text| !text.is_empty()).unwrap_or("TCP");
    one_of("", text, &known, "TCP, UDP or SCTP")
}

fn session_affinity(spec: &raw::ServiceSpec) -> Result<SessionAffinity, FieldError> {
    let text = spec.session_affinity.as_deref().unwrap_or("None");
    if !one_of("sessionAffinity", text, &[("None", false), ("ClientIP", true)], "ClientIP or None")?
    {
        return Ok(SessionAffinity::None);
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let timeout_seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    Ok(SessionAffinity::ClientIp { timeout_seconds })
}

fn internal_traffic_policy(spec: &raw::ServiceSpec) -> Result<Option<String>, FieldError> {
    let Some(text) = spec.internal_traffic_policy.as_deref() else { return Ok(None) };
    let known = [("Cluster", ()), ("Local", ())];
    one_of("internalTrafficPolicy", text, &known, "Cluster or Local")?;
    Ok(Some(text.to_owned()))
}

fn ip_families(spec: &raw::ServiceSpec) -> Result<Vec<IpFamily>, FieldError> {
    at_most("ipFamilies", &spec.ip_families, CLUSTER_IPS_MAX)?;
    let known = [("IPv4", IpFamily::Ipv4), ("IPv6", IpFamily::Ipv6)];
    let family = |(index, text): (usize, &String)| {
        one_of("", text, &known, "IPv4 or IPv6").at_index("ipFamilies", index)
    };
    let families: Vec<IpFamily> =
        spec.ip_families.iter().enumerate().map(family).collect::<Result<_, _>>()?;
    distinct(|index| format!("ipFamilies[{index}]"), spec.ip_families.iter())?;
    Ok(families)
}

fn ip_family_policy(spec: &raw::ServiceSpec) -> Result<Option<IpFamilyPolicy>, FieldError> {
    let known = [
        ("PreferDualStack", IpFamilyPolicy::PreferDualStack),
        ("RequireDualStack", IpFamilyPolicy::RequireDualStack),
        ("SingleStack", IpFamilyPolicy::SingleStack),
    ];
    let form = "SingleStack, PreferDualStack or RequireDualStack";
    let text = spec.ip_family_policy.as_deref();
    text.map(|text| one_of("ipFamilyPolicy", text, &known, form)).transpose()
}

pub(super) fn endpoint_slice(
    raw: raw::RawEndpointSlice,
    seen: i64,
) -> Result<EndpointSlice, FieldError> {
    let key = key(&raw.metadata)?;
    let known =
        [("FQDN", AddressType::Fqdn), ("IPv4", AddressType::Ipv4), ("IPv6", AddressType::Ipv6)];
    let address_type = one_of("addressType", &raw.address_type, &known, "IPv4, IPv6 or FQDN")?;
    at_most("endpoints", &raw.endpoints, SLICE_ENDPOINTS_MAX)?;
    at_most("ports", &raw.ports, SERVICE_PORTS_MAX)?;
    let labels = raw.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL));
    let field = format!("metadata.labels.{SERVICE_NAME_LABEL}");
    let service = service.map(|name| Label::new(name)).transpose().at(&field)?;
    let mut ports = Vec::with_capacity(raw.ports.len());
    for (index, slice_port) in raw.ports.iter().enumerate() {
        let number = slice_port.port.map(port).transpose();
        ports.push(SlicePort {
            name: slice_port.name.clone().unwrap_or_default(),
            port: number.at(&format!("ports[{index}].port"))?,
            transport: transport(slice_port.protocol.as_deref())
                .at(&format!("ports[{index}].protocol"))?,
        });
    }
    distinct(|index| format!("ports[{index}].name"), ports.iter().map(|port| port.name.clone()))?;
    let mut endpoints = Vec::with_capacity(raw.endpoints.len());
    for (index, endpoint) in raw.endpoints.iter().enumerate() {
        endpoints.push(slice_endpoint(endpoint, address_type).at_index("endpoints", index)?);
    }
    let created = created(&raw.metadata, seen)?;
    Ok(EndpointSlice { key, service, address_type, ports, endpoints, created })
}

fn slice_endpoint(
    raw: &raw::SliceEndpoint,
    address_type: AddressType,
) -> Result<SliceEndpoint, FieldError> {
    not_empty("addresses", &raw.addresses)?;
    at_most("addresses", &raw.addresses, ENDPOINT_ADDRESSES_MAX)?;
    let mut addresses = Vec::new();
    for (index, text) in raw.addresses.iter().enumerate() {
        if address_type != AddressType::Fqdn {
            addresses.push(endpoint_address(text, address_type).at_index("addresses", index)?);
        }
    }
    let ready = raw.conditions.ready.unwrap_or(true);
    let target = raw.target_ref.as_ref().map(|target| {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}/{}", part(&target.kind), part(&target.namespace), part(&target.name))
    });
    Ok(SliceEndpoint {
        addresses,
        conditions: EndpointConditions {
            ready,
            serving: raw.conditions.serving.unwrap_or(ready),
            terminating: raw.conditions.terminating.unwrap_or(false),
        },
        hostname: raw.hostname.as_deref().map(Label::new).transpose().at("hostname")?,
        zone: raw.zone.clone().filter(|zone| !zone.is_empty()),
        target: target.unwrap_or_default(),
    })
}

/// An address that an endpoint may have. Kubernetes also refuses loopback addresses; here
/// they are the addresses of workloads on one machine.
fn endpoint_address(text: &str, address_type: AddressType) -> Result<IpAddr, Reason> {
    let address: IpAddr =
        text.parse().map_err(|_| Reason::value(text, "an address of the slice's addressType"))?;
    if address.is_ipv4() != (address_type == AddressType::Ipv4) {
        return Err(Reason::value(text, "an address of the slice's addressType"));
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if link_local || address.is_unspecified() || address.is_multicast() {
        return Err(Reason::value(
            text,
            "a unicast address that an endpoint may have (link-local ones may not)",
        ));
    }
    Ok(address)
}

pub(super) fn secret(raw: raw::RawSecret, seen: i64) -> Result<Secret, FieldError> {
    let key = key(&raw.metadata)?;
    let created = created(&raw.metadata, seen)?;
    if raw.secret_type.as_deref() != Some(TLS_SECRET_TYPE) {
        return Ok(Secret { key, tls: None, created });
    }
    let (chain_pem, chain_field) = secret_text(&raw, "tls.crt")?;
    let (key_pem, key_field) = secret_text(&raw, "tls.key")?;
    let rule = |field: &str, rule| FieldError::rule(field, rule);
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match chain {
        Err(_) => return Err(rule(&chain_field, "is not PEM")),
        Ok(chain) if chain.is_empty() => {
            return Err(rule(&chain_field, "has no certificate in PEM"));
        }
        Ok(_) => {}
    }
    if PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).is_err() {
        return Err(rule(&key_field, "has no private key in PEM"));
    }
    Ok(Secret { key, tls: Some(TlsSecret { chain_pem, key_pem }), created })
}

/// A value of a secret as text, and the field that has it. `stringData` goes first, as
/// in Kubernetes. No error says anything of the value.
fn secret_text(raw: &raw::RawSecret, name: &str) -> Result<(String, String), FieldError> {
    if let Some(text) = raw.string_data.get(name) {
        return Ok((text.clone(), format!("stringData[{name}]")));
    }
    let field = format!("data[{name}]");
    let encoded = raw.data.get(name).ok_or_else(|| FieldError::new(&field, Reason::Missing))?;
    let encoded: String = encoded.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(encoded.as_bytes()).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match text {
        Some(text) => Ok((text, field)),
        None => Err(FieldError::rule(field, "is not base64 of text")),
    }
}

pub(super) fn config_map(raw: raw::RawConfigMap, seen: i64) -> Result<ConfigMap, FieldError> {
    let data: BTreeMap<String, String> = raw.data;
    Ok(ConfigMap { key: key(&raw.metadata)?, created: created(&raw.metadata, seen)?, data })
}

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const TLS_SECRET_TYPE: &str = "kubernetes.io/tls";
/// Kubernetes' default of `clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;
const CLUSTER_IPS_MAX: usize = 2;
/// Kubernetes has no limit; an object of 1.5 MiB holds more than anyone uses.
const SERVICE_PORTS_MAX: usize = 1_000;
/// Spec: EndpointSlice: "a maximum of 1000 endpoints".
const SLICE_ENDPOINTS_MAX: usize = 1_000;
/// Spec: EndpointSlice: "no more than 100 addresses".
const ENDPOINT_ADDRESSES_MAX: usize = 100;
