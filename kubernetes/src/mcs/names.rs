//! Names and labels of our objects, and reading from them what the cluster gave.

use std::collections::BTreeMap;
use std::net::IpAddr;

use isthmus_federation::plan::inputs::EASTWEST_ACCOUNT;
use isthmus_federation::proto::ServiceName;
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_model::{Label, ServiceKey};
use serde_json::Value;

use crate::apply::{FIELD_MANAGER, MANAGED_LABEL};
use crate::mcs::McsInputs;
use crate::source::PodState;

/// The ClusterSetIPs that the cluster gave: the addresses of our derived Services, for
/// [`isthmus_config::ClusterSetIps::Given`]. `observed` may hold anything else.
pub fn clusterset_ips<'v>(
    observed: impl IntoIterator<Item = &'v Value>,
) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
    let mut given = BTreeMap::new();
    for object in ours(observed, "Service") {
        let Some(import) = import_of(object) else { continue };
        // A name that somebody gave our label is not the one that we would give.
        if text(object, "/metadata/name") != derived(&import) {
            continue;
        }
        let addresses = object.pointer("/spec/clusterIPs").and_then(Value::as_array);
        let texts = addresses.into_iter().flatten().filter_map(Value::as_str);
        let addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        if !addresses.is_empty() {
            given.insert(ServiceKey::clusterset(import.namespace, import.name), addresses);
        }
    }
    given
}

/// The ports of the gateway that are written into our EndpointSlices, by service and its
/// port, for [`isthmus_config::Unmeshed::given`].
///
/// Whoever may write EndpointSlices in one namespace can write one that looks like ours and
/// claims the port of another service, and clients of that one would get there. So a port
/// is of the service whose slice is the oldest, which only the server can say.
pub fn given_ports<'v>(
    observed: impl IntoIterator<Item = &'v Value>,
) -> BTreeMap<(ServiceKey, u16), u16> {
    let mut slices: Vec<&Value> = ours(observed, "EndpointSlice").collect();
    slices.sort_by_key(|slice| text(slice, "/metadata/creationTimestamp"));
    let (mut given, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for object in slices {
        let Some(import) = import_of(object) else { continue };
        // A name that somebody gave our labels is not one that we would give.
        if !text(object, "/metadata/name").starts_with(&format!("{}-", derived(&import))) {
            continue;
        }
        let key = ServiceKey::clusterset(import.namespace, import.name);
        let annotations = object.pointer("/metadata/annotations");
        let ports = annotations.and_then(|all| all.get(PORTS_ANNOTATION)?.as_str());
        for pair in ports.unwrap_or_default().split(',') {
            let Some((port, bound)) = pair.split_once('=') else { continue };
            let (Ok(port), Ok(bound)) = (port.parse::<u16>(), bound.parse::<u16>()) else {
                continue;
            };
            let owner = (key.clone(), port);
            if *owners.entry(bound).or_insert_with(|| owner.clone()) == owner {
                given.entry(owner).or_insert(bound);
            }
        }
    }
    given
}

/// The name of the derived Service of an import.
pub(super) fn derived(import: &ServiceName) -> String {
    format!("derived-{}", hash(&import.to_string()))
}

/// A short text for a name, the same in every release (FNV-1a with 128 bits, folded).
pub(super) fn hash(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(FNV_OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME));
    let folded = (hash >> 64) ^ (hash & u128::from(u64::MAX));
    format!("{folded:016x}")
}

/// Whether a pod is one of the east-west gateway: by its account, which is the identity
/// that discovery gives the listeners of un-meshed pods to.
pub(super) fn is_gateway(pod: &PodState) -> bool {
    pod.namespace == SYSTEM_NAMESPACE
        && pod.service_account == EASTWEST_ACCOUNT
        && !pod.addresses.is_empty()
}

/// The `apiVersion` of ServiceImports: that of the objects that the server already gave
/// us, the newest one before that.
pub(super) fn import_version(inputs: &McsInputs<'_>) -> &'static str {
    let known = inputs
        .observed
        .iter()
        .chain(inputs.documents)
        .copied()
        .filter(|object| matches!(text(object, "/kind"), "ServiceExport" | "ServiceImport"));
    let mut versions = known.map(|object| text(object, "/apiVersion")).peekable();
    if versions.peek().is_some() && versions.all(|version| version == V1ALPHA1) {
        V1ALPHA1
    } else {
        V1BETA1
    }
}

pub(super) fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    // Without escapes a pointer is the names of fields; nothing is copied for them.
    let field = |value: &'v Value, field: &str| value.get(field);
    let found = pointer.split('/').skip(1).try_fold(object, field);
    found.and_then(Value::as_str).unwrap_or_default()
}

fn ours<'v>(
    observed: impl IntoIterator<Item = &'v Value>,
    kind: &'static str,
) -> impl Iterator<Item = &'v Value> {
    observed.into_iter().filter(move |object| {
        text(object, "/kind") == kind && label(object, MANAGED_LABEL) == Some(FIELD_MANAGER)
    })
}

/// The import that an object belongs to.
fn import_of(object: &Value) -> Option<ServiceName> {
    let namespace = Label::new(text(object, "/metadata/namespace")).ok()?;
    Some(ServiceName::new(namespace, Label::new(label(object, IMPORT_LABEL)?).ok()?))
}

pub(super) fn label<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.pointer("/metadata/labels")?.get(name)?.as_str()
}

const V1ALPHA1: &str = "multicluster.x-k8s.io/v1alpha1";
const V1BETA1: &str = "multicluster.x-k8s.io/v1beta1";
/// Spec: mcs-api `LabelServiceName`.
pub(super) const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";
/// Spec: mcs-api `LabelSourceCluster`.
pub(super) const CLUSTER_LABEL: &str = "multicluster.kubernetes.io/source-cluster";
/// The annotation of a ServiceImport that names its derived Service, as mcs-api has it.
pub(super) const DERIVED_ANNOTATION: &str = "multicluster.kubernetes.io/derived-service";
/// Which port of the gateway means which port of the service: `80=20123,443=20456`.
pub(super) const PORTS_ANNOTATION: &str = "isthmus.io/service-ports";
/// FNV-1a with 128 bits.
const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> ServiceName {
        let (namespace, name) = text.split_once('/').unwrap();
        ServiceName::new(Label::new(namespace).unwrap(), Label::new(name).unwrap())
    }

    fn slice(import: &str, created: &str, ports: &str) -> Value {
        let import = name(import);
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": import.namespace, "name": format!("{}-a-ipv4", derived(&import)),
                "creationTimestamp": created,
                "labels": {MANAGED_LABEL: FIELD_MANAGER, IMPORT_LABEL: import.name},
                "annotations": {PORTS_ANNOTATION: ports},
            },
        })
    }

    fn given(observed: &[Value]) -> Vec<(String, u16, u16)> {
        let all = given_ports(observed).into_iter();
        all.map(|((key, port), bound)| (format!("{}/{}", key.namespace, key.name), port, bound))
            .collect()
    }

    #[test]
    fn a_port_is_of_the_service_whose_slice_is_the_oldest() {
        let observed = [
            slice("attic/thief", "2026-02-02T00:00:00Z", "80=20001,81=20003"),
            slice("shop/pay", "2026-01-01T00:00:00Z", "443=20001,80=20002"),
        ];
        let want = [
            ("attic/thief".to_owned(), 81, 20_003),
            ("shop/pay".to_owned(), 80, 20_002),
            ("shop/pay".to_owned(), 443, 20_001),
        ];
        assert_eq!(given(&observed), want);
    }

    #[test]
    fn a_slice_of_another_name_or_with_no_numbers_gives_nothing() {
        let mut named = slice("shop/pay", "", "80=20001");
        named["metadata"]["name"] = json!("mine");
        let broken = slice("shop/pay", "", "80=99999,=,x=y,80");
        assert_eq!(given(&[named, broken]), []);
    }
}
