//! Linked clusters, trust bundles, and the reserved service through which controllers
//! reach each other.
//!
//! Controllers talk over the same links as every service: each cluster has a service
//! `federation.isthmus-system` whose endpoint in a peer is that peer's controller. It is
//! made here and never replicated, so no peer can offer or shadow it.

use std::collections::BTreeSet;

use isthmus_model::endpoint::{Export, PortEndpoints};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{
    AppProtocol, Endpoint, EndpointId, EndpointTarget, Endpoints, Health, Label, Locality,
    MeshPort, Peer, Resource, Service, ServiceKey, ServicePort, Transport, TrustBundle,
    TrustDomain,
};

use super::inputs::{CONTROLLER_ACCOUNT, EASTWEST_ACCOUNT, Inputs, system_identity};
use crate::proto::{BundleDocument, Entry, EntryKey};

/// Plans peers, bundles and the reserved service.
pub(crate) fn plan_peers(inputs: &Inputs<'_>) -> Vec<Resource> {
    let mut resources = Vec::new();
    for (cluster, link) in inputs.links {
        let view = inputs.peers.get(cluster);
        let properties = view.and_then(|view| view.entries.get(&EntryKey::Properties));
        let locality = match properties.map(AsRef::as_ref) {
            Some(Entry::Properties(properties)) => properties.locality.clone(),
            Some(
                Entry::Bundle(_) | Entry::Endpoints(_) | Entry::Gateway(_) | Entry::Service(_),
            )
            | None => Locality::default(),
        };
        resources.push(Resource::Peer(Peer {
            cluster: cluster.clone(),
            trust_domain: link.trust_domain.clone(),
            gateway: system_identity(&link.trust_domain, EASTWEST_ACCOUNT),
            addresses: link.addresses.clone(),
            dial: link.dial,
            locality,
            link: view.map(|view| view.link).unwrap_or_default(),
            lease_valid: view.is_some_and(|view| view.lease_valid),
        }));
    }
    let own = inputs.own_bundle.map(|bundle| trust_bundle(&inputs.own.trust_domain, bundle));
    resources.extend(own);
    let linked: BTreeSet<_> = inputs.links.values().map(|link| &link.trust_domain).collect();
    for (domain, bundle) in inputs.bundles {
        if linked.contains(domain) {
            resources.push(trust_bundle(domain, bundle));
        }
    }
    if !inputs.links.is_empty() {
        resources.extend(reserved(inputs));
    }
    resources
}

fn trust_bundle(domain: &TrustDomain, bundle: &BundleDocument) -> Resource {
    Resource::TrustBundle(TrustBundle {
        trust_domain: domain.clone(),
        jwks: bundle.jwks.to_string(),
        sequence: bundle.sequence,
    })
}

fn reserved(inputs: &Inputs<'_>) -> [Resource; 3] {
    let key = federation_service();
    let own = Endpoint {
        target: EndpointTarget::Local {
            address: inputs.own.federation_listen,
            mesh: Some(MeshPort(inputs.own.federation_listen)),
        },
        ..controller_endpoint(&inputs.own.trust_domain, &inputs.own.cluster)
    };
    let peers = inputs.links.iter();
    let mut remote: Vec<Endpoint> =
        peers.map(|(cluster, link)| controller_endpoint(&link.trust_domain, cluster)).collect();
    remote.sort_by(|a, b| a.remote_cluster().cmp(&b.remote_cluster()));
    let group = |endpoints| {
        vec![PortEndpoints { port: FEDERATION_PORT, transport: Transport::Tcp, endpoints }]
    };
    let port = ServicePort {
        name: None,
        number: FEDERATION_PORT,
        transport: Transport::Tcp,
        app: AppProtocol::Tcp,
        app_protocol: None,
    };
    [
        Resource::Export(Export {
            service: key.clone(),
            peers: inputs.links.keys().cloned().collect(),
            ports: group(vec![own]),
            denied: BTreeSet::new(),
        }),
        Resource::Endpoints(Endpoints { service: key.clone(), ports: group(remote) }),
        Resource::Service(Service {
            key,
            addresses: Vec::new(),
            headless: true,
            ports: vec![port],
            clusters: inputs.links.keys().cloned().collect(),
        }),
    ]
}

fn controller_endpoint(domain: &TrustDomain, cluster: &isthmus_model::ClusterId) -> Endpoint {
    Endpoint {
        id: federation_endpoint(),
        target: EndpointTarget::Remote { cluster: cluster.clone(), port: FEDERATION_PORT },
        locality: Locality::default(),
        weight: 1,
        health: Health::Ready,
        identity: Some(system_identity(domain, CONTROLLER_ACCOUNT)),
        hostname: None,
    }
}

/// The reserved service of controllers.
pub fn federation_service() -> ServiceKey {
    let label = |text| Label::new(text).expect("the parts of the reserved name are labels");
    ServiceKey::clusterset(label(SYSTEM_NAMESPACE), label(FEDERATION_NAME))
}

/// The id of the controller as an endpoint of its cluster.
pub fn federation_endpoint() -> EndpointId {
    EndpointId::new(FEDERATION_NAME).expect("the reserved name is an endpoint id")
}

/// Port of the reserved service.
pub const FEDERATION_PORT: u16 = 15012;

const FEDERATION_NAME: &str = "federation";
