//! Which Gateways are to be served, and with which parameters.
//!
//! A Gateway's own `infrastructure.parametersRef` wins over that of its class. One that
//! names what is no parameters, or what does not exist, refuses the Gateway: serving it
//! with other parameters than those that were asked for could open it to the wrong
//! clients.

use super::is_ours;
use crate::kind::{Kind, ObjectRef};
use crate::objects::{
    AllowedNamespaces, Gateway, GatewayAddress, GatewayClass, GatewayListener, GatewayParameters,
    ListenerSet, Objects, ParametersRef,
};
use crate::translate::conditions::Problem;

/// A Gateway of ours that processes are to serve.
#[derive(Debug, Clone)]
pub struct ServedGateway<'o> {
    /// The Gateway.
    pub gateway: &'o Gateway,
    /// Its parameters; `None` asks for the defaults.
    pub parameters: Option<&'o GatewayParameters>,
    /// Its listeners and those of the ListenerSets that it allows. Whether each can be
    /// used is for its own conditions to say.
    pub listeners: Vec<&'o GatewayListener>,
}

/// The Gateways of ours that processes are to serve, in order of their names: those whose
/// parameters and addresses do not refuse them.
pub fn served_gateways(objects: &Objects) -> Vec<ServedGateway<'_>> {
    let all = objects.gateways.values().map(AsRef::as_ref);
    let ours = all.filter(|gateway| is_ours(objects, gateway));
    let asked = ours.filter(|gateway| !has_only_unsupported_addresses(gateway));
    let served = |gateway| {
        let parameters = parameters(objects, gateway).ok()?;
        Some(ServedGateway { gateway, parameters, listeners: listeners(objects, gateway) })
    };
    asked.filter_map(served).collect()
}

/// The parameters of a Gateway, or why it cannot be accepted.
pub(super) fn parameters<'o>(
    objects: &'o Objects,
    gateway: &Gateway,
) -> Result<Option<&'o GatewayParameters>, Problem> {
    match &gateway.infrastructure.parameters {
        Some(own) => find(objects, own).map(Some),
        None => match objects.gateway_classes.get(&gateway.class) {
            Some(class) => parameters_of_class(objects, class),
            None => Ok(None),
        },
    }
}

/// The parameters of a GatewayClass, or why it cannot be accepted.
pub(super) fn parameters_of_class<'o>(
    objects: &'o Objects,
    class: &GatewayClass,
) -> Result<Option<&'o GatewayParameters>, Problem> {
    class.parameters.as_ref().map(|reference| find(objects, reference)).transpose()
}

/// Whether a Gateway lets a ListenerSet add listeners.
pub(super) fn allows(objects: &Objects, gateway: &Gateway, set: &ListenerSet) -> bool {
    match &gateway.allowed_listeners {
        AllowedNamespaces::All => true,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Same => set.key.namespace == gateway.key.namespace,
        AllowedNamespaces::Selector(selector) => {
            selector.matches(&objects.namespace_labels(set.key.namespace.as_str()))
        }
    }
}

fn find<'o>(
    objects: &'o Objects,
    reference: &ParametersRef,
) -> Result<&'o GatewayParameters, Problem> {
    let invalid = |message: String| Problem::new("InvalidParameters", message);
    match reference {
        ParametersRef::Unusable(why) => Err(invalid(why.clone())),
        ParametersRef::Parameters(key) => {
            let found = objects.gateway_parameters.get(key).map(AsRef::as_ref);
            found.ok_or_else(|| {
                let named = ObjectRef::namespaced(Kind::GatewayParameters, key);
                invalid(format!("{named} does not exist or was never valid"))
            })
        }
    }
}

fn listeners<'o>(objects: &'o Objects, gateway: &'o Gateway) -> Vec<&'o GatewayListener> {
    let of_gateway = |set: &&ListenerSet| set.gateway.as_ref() == Some(&gateway.key);
    let sets = objects.listener_sets.values().map(AsRef::as_ref).filter(of_gateway);
    let sets = sets.filter(|set| allows(objects, gateway, set));
    gateway.listeners.iter().chain(sets.flat_map(|set| &set.listeners)).collect()
}

fn has_only_unsupported_addresses(gateway: &Gateway) -> bool {
    let mut all = gateway.addresses.iter();
    !gateway.addresses.is_empty()
        && all.all(|address| matches!(address, GatewayAddress::Unsupported(_)))
}

#[cfg(test)]
mod tests {
    use isthmus_model::{ClusterId, TrustDomain};

    use super::*;
    use crate::context::Context;
    use crate::translate::{testing, translate};

    const SETS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: near, namespace: infra}
spec: {parentRef: {name: edge}, listeners: [{name: b, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: far, namespace: apps}
spec: {parentRef: {name: edge, namespace: infra}, listeners: [{name: b, port: 82, protocol: HTTP}]}
";

    /// A class and a Gateway with these references, and the parameters `wide` and `own`.
    fn objects(class: &str, gateway: &str) -> std::sync::Arc<Objects> {
        let reference = |name: &str, namespace: &str| match name {
            "" => String::new(),
            "other" => "parametersRef: {group: x.io, kind: Y, name: z}".to_owned(),
            _ => format!(
                "parametersRef: {{group: isthmus.io, kind: GatewayParameters, name: {name}\
                 {namespace}}}"
            ),
        };
        let parameters = |name: &str, replicas: u16| {
            format!(
                "---
apiVersion: isthmus.io/v1alpha1
kind: GatewayParameters
metadata: {{name: {name}, namespace: infra}}
spec: {{replicas: {replicas}}}
"
            )
        };
        let (class, own) = (reference(class, ", namespace: infra"), reference(gateway, ""));
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: isthmus}}
spec:
  controllerName: isthmus.io/gateway-controller
  {class}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: infra}}
spec:
  gatewayClassName: isthmus
  allowedListeners: {{namespaces: {{from: Same}}}}
  infrastructure: {{{own}}}
  listeners: [{{name: a, port: 80, protocol: HTTP}}]
{}{}{SETS}",
            parameters("wide", 2),
            parameters("own", 3),
        );
        testing::objects(&text)
    }

    fn accepted(objects: &Objects) -> Vec<String> {
        let cluster = ClusterId::new("aws").unwrap();
        let context = Context::new(cluster, TrustDomain::new("aws.demo").unwrap());
        let all = translate(objects, &context).conditions;
        let texts = all.iter().map(ToString::to_string);
        texts.filter(|text| text.contains(": Accepted is") && text.contains("Gateway")).collect()
    }

    fn replicas(objects: &Objects) -> Option<u16> {
        let served = served_gateways(objects);
        served
            .first()
            .map(|served| served.parameters.map_or(1, |found| found.replicas.unwrap_or(1)))
    }

    #[test]
    fn parameters_of_the_gateway_win_over_those_of_its_class() {
        for (class, gateway, expected) in [
            ("", "", Some(1)),
            ("wide", "", Some(2)),
            ("wide", "own", Some(3)),
            ("gone", "own", Some(3)),
            ("gone", "", None),
            ("wide", "gone", None),
            ("other", "", None),
            ("wide", "other", None),
        ] {
            assert_eq!(replicas(&objects(class, gateway)), expected, "{class:?} {gateway:?}");
        }
    }

    #[test]
    fn a_reference_that_names_no_parameters_is_said_of_class_and_gateway() {
        let texts = accepted(&objects("gone", ""));
        for object in ["GatewayClass isthmus", "Gateway infra/edge"] {
            let text = format!("{object}: Accepted is false: InvalidParameters: ");
            assert!(texts.iter().any(|found| found.starts_with(&text)), "{texts:?}");
        }
        let texts = accepted(&objects("wide", "own"));
        assert!(
            texts.iter().any(|text| text.starts_with("GatewayClass isthmus: Accepted is true"))
        );
        assert!(texts.iter().any(|text| text.starts_with("Gateway infra/edge: Accepted is true")));
    }

    #[test]
    fn the_listeners_of_sets_that_are_allowed_are_served_too() {
        let objects = objects("", "");
        let ports = |served: &ServedGateway<'_>| -> Vec<u16> {
            served.listeners.iter().map(|listener| listener.port).collect()
        };
        assert_eq!(ports(&served_gateways(&objects)[0]), [80, 81]);
    }
}
