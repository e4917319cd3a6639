//! GatewayParameters, and the references to it.

use isthmus_model::ObjectName;
use serde_json::Value;

use super::values::{at_most, one_of};
use super::{created, key};
use crate::error::{At, FieldError, Reason, printable};
use crate::kind::{ISTHMUS_GROUP, Kind, ObjectKey};
use crate::objects::parameters::WORKERS;
use crate::objects::{
    GatewayMode, GatewayParameters, GatewayServiceType, ParametersRef, PodParameters,
    ServiceParameters, TrafficPolicy,
};
use crate::raw::gateway::ParametersRef as RawRef;
use crate::raw::parameters as raw;

pub(super) fn gateway_parameters(
    raw: raw::RawGatewayParameters,
    seen: i64,
) -> Result<GatewayParameters, FieldError> {
    let spec = raw.spec.unwrap_or_default();
    let modes = [("Dedicated", GatewayMode::Dedicated), ("Shared", GatewayMode::Shared)];
    let mode = spec.mode.as_deref().unwrap_or("Dedicated");
    Ok(GatewayParameters {
        key: key(&raw.metadata)?,
        mode: one_of("spec.mode", mode, &modes, "Dedicated or Shared")?,
        replicas: number(spec.replicas, (1, REPLICAS_MAX), "a number from 1 to 100")
            .at("spec.replicas")?,
        workers: number(spec.workers, (0, WORKERS_MAX), "a number from 0 to 1024")
            .at("spec.workers")?
            .unwrap_or(WORKERS),
        service: service(spec.service).at("spec.service")?,
        pod: pod(spec.pod).at("spec.pod")?,
        created: created(&raw.metadata, seen)?,
    })
}

fn number(
    given: Option<i64>,
    (low, high): (u16, u16),
    form: &'static str,
) -> Result<Option<u16>, Reason> {
    let Some(given) = given else { return Ok(None) };
    let number = u16::try_from(given).ok().filter(|number| (low..=high).contains(number));
    number.map(Some).ok_or_else(|| Reason::value(given, form))
}

fn service(raw: raw::ServiceParameters) -> Result<ServiceParameters, FieldError> {
    let kinds = [
        ("ClusterIP", GatewayServiceType::ClusterIp),
        ("LoadBalancer", GatewayServiceType::LoadBalancer),
        ("NodePort", GatewayServiceType::NodePort),
    ];
    let kind = raw.kind.as_deref().unwrap_or("LoadBalancer");
    let kind = one_of("type", kind, &kinds, "ClusterIP, LoadBalancer or NodePort")?;
    let policies = [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
    let policy = raw.external_traffic_policy.as_deref();
    let policy = policy
        .map(|text| one_of("externalTrafficPolicy", text, &policies, "Cluster or Local"))
        .transpose()?;
    // The API server refuses a Service with these, and with it the whole Gateway.
    if raw.load_balancer_class.is_some() && kind != GatewayServiceType::LoadBalancer {
        let rule = "must be absent unless the type is LoadBalancer";
        return Err(FieldError::rule("loadBalancerClass", rule));
    }
    if policy.is_some() && kind == GatewayServiceType::ClusterIp {
        let rule = "must be absent for type ClusterIP";
        return Err(FieldError::rule("externalTrafficPolicy", rule));
    }
    Ok(ServiceParameters {
        kind,
        load_balancer_class: raw.load_balancer_class,
        external_traffic_policy: policy,
        annotations: raw.annotations,
        labels: raw.labels,
    })
}

fn pod(raw: raw::PodParameters) -> Result<PodParameters, FieldError> {
    at_most("tolerations", &raw.tolerations, TOLERATIONS_MAX)?;
    if raw.resources.as_ref().is_some_and(|resources| !resources.is_object()) {
        return Err(FieldError::rule("resources", "must be an object with requests and limits"));
    }
    if let Some(index) = raw.tolerations.iter().position(|entry| !entry.is_object()) {
        let rule = "must be an object like {key: dedicated, operator: Exists}";
        return Err(FieldError::rule(format!("tolerations[{index}]"), rule));
    }
    let named = raw.priority_class_name.filter(|name| !name.is_empty());
    let named = named.map(|name| ObjectName::new(&name)).transpose().at("priorityClassName")?;
    Ok(PodParameters {
        resources: raw.resources.filter(|resources| *resources != Value::Null),
        node_selector: raw.node_selector,
        tolerations: raw.tolerations,
        priority_class: named.map(|name| name.to_string()),
        annotations: raw.annotations,
        labels: raw.labels,
    })
}

/// A `parametersRef`. One of another kind is no error of the object: its status says so.
pub(super) fn parameters_ref(raw: &RawRef) -> Result<ParametersRef, FieldError> {
    let slash = if raw.group.is_empty() { "" } else { "/" };
    let text = || printable(&format!("{}{slash}{} {}", raw.group, raw.kind, raw.name));
    if raw.group != ISTHMUS_GROUP || raw.kind != Kind::GatewayParameters.label() {
        let why = format!("{} is not an {ISTHMUS_GROUP}/GatewayParameters", text());
        return Ok(ParametersRef::Unusable(why));
    }
    let Some(namespace) = raw.namespace.as_deref().filter(|text| !text.is_empty()) else {
        let why = format!("{} is named without its namespace", text());
        return Ok(ParametersRef::Unusable(why));
    };
    let key = ObjectKey {
        namespace: isthmus_model::Label::new(namespace).at("namespace")?,
        name: ObjectName::new(&raw.name).at("name")?,
    };
    Ok(ParametersRef::Parameters(key))
}

const REPLICAS_MAX: u16 = 100;
const WORKERS_MAX: u16 = 1024;
const TOLERATIONS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use crate::index::Index;
    use crate::objects::{GatewayMode, GatewayParameters, GatewayServiceType, TrafficPolicy};
    use crate::source::SourceDocument;

    fn read(spec: &str) -> Result<GatewayParameters, String> {
        let text = format!(
            "apiVersion: isthmus.io/v1alpha1\nkind: GatewayParameters\n\
             metadata: {{name: p, namespace: infra}}\n{spec}\n"
        );
        let mut index = Index::new();
        let outcome = index.apply(&SourceDocument::split("t.yaml", &text), 7);
        match outcome.errors.first() {
            Some(error) => Err(error.to_string()),
            None => {
                Ok(index.objects().gateway_parameters.values().next().unwrap().as_ref().clone())
            }
        }
    }

    #[test]
    fn parameters_that_say_nothing_are_the_defaults() {
        for spec in ["", "spec: {}"] {
            let found = read(spec).unwrap();
            let defaults = GatewayParameters::with_defaults(found.key.clone());
            assert_eq!(found, GatewayParameters { created: 7, ..defaults });
        }
    }

    #[test]
    fn every_field_is_read() {
        let found = read(
            "spec:
  mode: Shared
  replicas: 3
  workers: 0
  service:
    type: NodePort
    externalTrafficPolicy: Local
    annotations: {a: b}
    labels: {c: d}
  pod:
    resources: {limits: {memory: 1Gi}}
    nodeSelector: {disk: ssd}
    tolerations: [{key: edge, operator: Exists}]
    priorityClassName: high
    annotations: {e: f}
    labels: {g: h}",
        )
        .unwrap();
        assert_eq!((found.mode, found.replicas, found.workers), (GatewayMode::Shared, Some(3), 0));
        assert_eq!(found.service.kind, GatewayServiceType::NodePort);
        assert_eq!(found.service.external_traffic_policy, Some(TrafficPolicy::Local));
        assert_eq!(found.pod.resources.unwrap()["limits"]["memory"], "1Gi");
        assert_eq!(found.pod.tolerations[0]["key"], "edge");
        assert_eq!(found.pod.priority_class.as_deref(), Some("high"));
        let maps = [
            found.service.annotations,
            found.service.labels,
            found.pod.node_selector,
            found.pod.annotations,
            found.pod.labels,
        ];
        assert!(maps.iter().all(|map| map.len() == 1));
    }

    #[test]
    fn what_the_server_would_refuse_is_named_with_its_field() {
        for (spec, expected) in [
            ("{replica: 2}", "spec.replica: unknown field `replica`"),
            ("{service: {kind: NodePort}}", "spec.service.kind: unknown field `kind`"),
            ("{mode: shared}", "spec.mode: \"shared\" is not Dedicated or Shared"),
            ("{replicas: 0}", "spec.replicas: \"0\" is not a number from 1 to 100"),
            ("{workers: -1}", "spec.workers: \"-1\" is not"),
            ("{service: {type: ExternalName}}", "spec.service.type: \"ExternalName\" is not"),
            (
                "{service: {type: NodePort, loadBalancerClass: a/b}}",
                "spec.service.loadBalancerClass: must be absent unless",
            ),
            (
                "{service: {type: ClusterIP, externalTrafficPolicy: Local}}",
                "spec.service.externalTrafficPolicy: must be absent",
            ),
            ("{pod: {resources: [a]}}", "spec.pod.resources: must be an object"),
            ("{pod: {tolerations: [a]}}", "spec.pod.tolerations[0]: must be an object"),
        ] {
            let error = read(&format!("spec: {spec}")).unwrap_err();
            let expected = format!("GatewayParameters infra/p: {expected}");
            assert!(error.contains(&expected), "{error}\nwant {expected}");
        }
    }
}
