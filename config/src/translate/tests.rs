mod attachment;
mod kinds;
mod links;
mod listeners;
mod policies;
mod references;
mod routes;
mod services;

use isthmus_model::{ClusterId, HttpRoute, Label, Locality, TrustDomain};

use super::*;
use crate::translate::testing::{PEM, listeners, objects, resources};

fn context() -> Context {
    let trust_domain = TrustDomain::new("aws.demo").unwrap();
    let mut context = Context::new(ClusterId::new("aws").unwrap(), trust_domain);
    context.locality = Locality::new("us-east-1", "us-east-1a");
    context
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn run(text: &str) -> Translation {
    translate(&objects(text), &context())
}

fn routes(translation: &Translation) -> Vec<&HttpRoute> {
    let mut found = Vec::new();
    for resource in resources(translation) {
        if let Resource::HttpRoute(route) = resource {
            found.push(route);
        }
    }
    found
}

fn problems(translation: &Translation) -> Vec<String> {
    let problems = translation.conditions.iter().filter(|condition| condition.is_problem());
    problems.map(ToString::to_string).collect()
}

fn has(translation: &Translation, text: &str) {
    let found = problems(translation);
    assert!(found.iter().any(|problem| problem.contains(text)), "{text}\n{found:#?}");
}

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: isthmus
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: backend}
spec: {ports: [{port: 8080}]}
";

fn with_route(spec: &str) -> String {
    format!(
        "{BASE}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: front, namespace: shop}}\nspec:\n  parentRefs: [{{name: edge, namespace: infra}}]\n{spec}\n"
    )
}
