//! The inputs that configuration gives, and its resources merged with federation's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isthmus_config::objects::{
    IpFamily as ConfigFamily, Service as ServiceObject, ServiceType,
    SessionAffinity as ConfigAffinity,
};
use isthmus_config::{
    Context, GatewayStatus, ListenerStatus, ObjectCondition, Objects, Translator, exported_services,
};
use isthmus_model::{ClusterId, Label, Resource, ResourceKey, ServiceKey, TrustDomain};

use super::inputs::{ExportInvalid, Inputs, LinkRules, OwnCluster, OwnExport};
use super::{Federated, federate};
use crate::proto::admit::{PROPERTIES_MAX, TEXT_MAX};
use crate::proto::{
    ExportedMetadata, ExportedTraffic, Grants, IpFamily, ServiceName, SessionAffinity,
};

/// The user's objects and what is known besides them, as one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The valid objects.
    pub objects: Arc<Objects>,
    /// What translation knows besides; its imports are replaced.
    pub context: Context,
}

/// What follows from configuration and federation together.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Everything to publish to proxies.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
    /// What federation decided; its resources are in `resources`.
    pub federated: Federated,
    /// Conditions of the user's other objects.
    pub conditions: Vec<ObjectCondition>,
    /// What the status of every listener of ours says beside its conditions.
    pub listeners: Vec<ListenerStatus>,
    /// What the status of every Gateway of ours says beside its conditions.
    pub gateways: Vec<GatewayStatus>,
}

/// The part of the inputs that comes from configuration alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// This cluster's ServiceExports.
    pub exports: BTreeMap<ServiceName, OwnExport>,
    /// The namespaces that exist here.
    pub namespaces: BTreeSet<Label>,
    /// What the ClusterProperties say, by name; at most [`PROPERTIES_MAX`].
    pub properties: BTreeMap<String, String>,
    /// The links in use.
    pub links: BTreeMap<ClusterId, LinkRules>,
    /// Links that are not used, by name, and why.
    pub refused_links: BTreeMap<String, LinkRefused>,
}

/// Why a ClusterLink is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefused {
    /// It names this cluster, or its trust domain.
    #[error("it names this cluster or its own trust domain")]
    Own,
    /// An older link names the same cluster or trust domain.
    #[error("the older ClusterLink {older} names the same cluster or trust domain")]
    Taken {
        /// The older link.
        older: String,
    },
    /// There are too many.
    #[error("it is one too many, at most {LINKS_MAX} links are used")]
    TooMany,
}

/// Decides everything that is published.
///
/// The translator decides nothing: it is what the translations of a controller share, and
/// one that has translated other states gives the same plan as a new one.
pub fn plan(
    configuration: &Configuration,
    inputs: &Inputs<'_>,
    translator: &mut Translator,
) -> Plan {
    let mut federated = federate(inputs);
    let context = Context { imports: federated.imports.clone(), ..configuration.context.clone() };
    let translation = translator.translate(&configuration.objects, &context);
    // As one sequence, mostly in order: a map of many thousand is made from it sooner than
    // entry by entry. Of two with one key the last is taken, which is that of federation.
    let named = translation.resources.into_iter().map(|named| (named.key, named.resource));
    let federation = std::mem::take(&mut federated.resources);
    let resources = named.chain(federation).collect();
    Plan {
        resources,
        federated,
        conditions: translation.conditions,
        listeners: translation.listeners,
        gateways: translation.gateways,
    }
}

/// Reads what configuration says about federation.
pub fn configured(configuration: &Configuration, own: &OwnCluster) -> Configured {
    let (links, refused_links) = links(&configuration.objects, own);
    Configured {
        exports: exports(configuration),
        namespaces: namespaces(&configuration.objects),
        properties: properties(&configuration.objects),
        links,
        refused_links,
    }
}

/// A value that is too long for the wire stays at home, and so do those beyond the bound.
fn properties(objects: &Objects) -> BTreeMap<String, String> {
    let all = objects.cluster_properties.values();
    let fits = |text: &str| text.len() <= TEXT_MAX;
    all.filter(|property| fits(property.name.as_str()) && fits(&property.value))
        .take(PROPERTIES_MAX)
        .map(|property| (property.name.to_string(), property.value.clone()))
        .collect()
}

fn exports(configuration: &Configuration) -> BTreeMap<ServiceName, OwnExport> {
    let objects = &configuration.objects;
    let mut services = exported_services(objects, &configuration.context);
    let mut exports = BTreeMap::new();
    for export in objects.service_exports.values() {
        let name = ServiceName::new(export.key.namespace.clone(), export.service.clone());
        let object = objects.services.get(&export.key);
        let key = ServiceKey::cluster(name.namespace.clone(), name.name.clone());
        let own = match (object, services.remove(&key)) {
            (Some(object), Some(local)) => OwnExport::Valid {
                created: export.created,
                service: Box::new(local.service),
                endpoints: Arc::new(local.endpoints),
                traffic: traffic(object),
                metadata: ExportedMetadata::bounded(
                    &export.exported_labels,
                    &export.exported_annotations,
                ),
            },
            (Some(object), None) if matches!(object.service_type, ServiceType::ExternalName(_)) => {
                OwnExport::Invalid(ExportInvalid::ServiceType)
            }
            (Some(_) | None, _) => OwnExport::Invalid(ExportInvalid::NoService),
        };
        exports.insert(name, own);
    }
    exports
}

fn traffic(service: &ServiceObject) -> ExportedTraffic {
    let session_affinity = match service.session_affinity {
        ConfigAffinity::ClientIp { timeout_seconds } => {
            SessionAffinity::ClientIp { timeout_seconds }
        }
        ConfigAffinity::None => SessionAffinity::None,
    };
    let family = |family: &ConfigFamily| match family {
        ConfigFamily::Ipv4 => IpFamily::Ipv4,
        ConfigFamily::Ipv6 => IpFamily::Ipv6,
    };
    ExportedTraffic {
        session_affinity,
        internal_traffic_policy: service.internal_traffic_policy.as_deref().map(Arc::from),
        traffic_distribution: service.traffic_distribution.as_deref().map(Arc::from),
        ip_families: service.ip_families.iter().map(family).collect(),
    }
}

/// A directory of manifests often has no Namespace objects; a namespace with any object in
/// it exists too.
fn namespaces(objects: &Objects) -> BTreeSet<Label> {
    let explicit = objects.namespaces.keys().filter_map(|name| Label::new(name.as_str()).ok());
    explicit.chain(objects.namespaces_in_use()).collect()
}

type Links = (BTreeMap<ClusterId, LinkRules>, BTreeMap<String, LinkRefused>);

fn links(objects: &Objects, own: &OwnCluster) -> Links {
    let mut by_age: Vec<_> = objects.cluster_links.values().collect();
    by_age.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut taken: BTreeMap<ClusterId, &str> = BTreeMap::new();
    let mut domains: BTreeMap<TrustDomain, &str> = BTreeMap::new();
    let (mut links, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for link in by_age {
        let older = taken.get(&link.cluster).or_else(|| domains.get(&link.trust_domain));
        let reason = if link.cluster == own.cluster || link.trust_domain == own.trust_domain {
            Some(LinkRefused::Own)
        } else if let Some(older) = older {
            Some(LinkRefused::Taken { older: (*older).to_owned() })
        } else {
            (links.len() >= LINKS_MAX).then_some(LinkRefused::TooMany)
        };
        if let Some(reason) = reason {
            refused.insert(link.name.to_string(), reason);
            continue;
        }
        taken.insert(link.cluster.clone(), link.name.as_str());
        domains.insert(link.trust_domain.clone(), link.name.as_str());
        let rules = LinkRules {
            trust_domain: link.trust_domain.clone(),
            addresses: link.addresses.clone(),
            dial: link.dial,
            import: Grants::new(link.import.clone()),
            export: Grants::new(link.export.clone()),
            jwks: link.jwks().map(Arc::from),
        };
        links.insert(link.cluster.clone(), rules);
    }
    (links, refused)
}

/// Linked clusters.
pub const LINKS_MAX: usize = 256;
