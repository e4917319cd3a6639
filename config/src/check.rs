//! `isthmus up --check` and `isthmus check config`: everything that can be said of
//! manifests without running them.

use std::path::Path;

use crate::context::Context;
use crate::error::ConfigError;
use crate::index::{Index, Notice};
use crate::kind::{Kind, ObjectRef};
use crate::objects::{HttpRoute, Objects};
use crate::source::SourceDocument;
use crate::source::directory::{DirectoryError, read};
use crate::translate::conditions::ObjectCondition;
use crate::translate::{has_ready_endpoint, local_services, translate};

/// What was found in manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects that are valid.
    pub objects: usize,
    /// Objects that are not.
    pub errors: Vec<ConfigError>,
    /// What does not work of the valid ones.
    pub conditions: Vec<ObjectCondition>,
    /// What works and is likely not meant.
    pub warnings: Vec<Warning>,
    /// Documents that were passed over.
    pub notices: Vec<Notice>,
}

impl Report {
    /// Whether every object is valid and everything works.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.conditions.is_empty()
    }
}

/// Something that works and is likely not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The object.
    pub object: ObjectRef,
    /// What is odd.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// Checks the manifests of a directory.
///
/// # Errors
///
/// [`DirectoryError::Open`] when the directory cannot be read.
pub fn check_directory(root: &Path, context: &Context) -> Result<Report, DirectoryError> {
    Ok(check(&read(root)?, context))
}

/// Checks documents.
pub fn check(documents: &[SourceDocument], context: &Context) -> Report {
    let mut index = Index::new();
    let outcome = index.apply(documents, 0);
    let objects = index.objects();
    let mut conditions = translate(objects, context).conditions;
    conditions.retain(ObjectCondition::is_problem);
    Report {
        objects: objects.len(),
        errors: outcome.errors,
        conditions,
        warnings: warnings(objects, context),
        notices: outcome.notices,
    }
}

fn warnings(objects: &Objects, context: &Context) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |object, message: String| found.push(Warning { object, message });
    for gateway in objects.gateways.values() {
        if !objects.gateway_classes.contains_key(&gateway.class) {
            let object = ObjectRef::namespaced(Kind::Gateway, &gateway.key);
            warn(object, format!("GatewayClass {} does not exist", gateway.class));
        }
    }
    for route in objects.http_routes.values() {
        let object = ObjectRef::namespaced(Kind::HttpRoute, &route.key);
        if route.parents.is_empty() {
            warn(object.clone(), "has no parentRefs and is attached nowhere".into());
        }
        for message in fields_without_effect(route) {
            warn(object.clone(), message);
        }
    }
    for export in objects.service_exports.values() {
        if !objects.services.contains_key(&export.key) {
            let object = ObjectRef::namespaced(Kind::ServiceExport, &export.key);
            warn(object, format!("Service {} does not exist", export.key));
        }
    }
    for slice in objects.endpoint_slices.values() {
        if slice.service.is_none() {
            let object = ObjectRef::namespaced(Kind::EndpointSlice, &slice.key);
            warn(object, "has no label kubernetes.io/service-name and is not used".into());
        }
    }
    for (key, local) in local_services(objects, context) {
        if !has_ready_endpoint(&local) {
            let object = ObjectRef {
                kind: Kind::Service,
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            };
            warn(object, "has no endpoint that takes requests".into());
        }
    }
    found.sort_by(|a, b| (&a.object, &a.message).cmp(&(&b.object, &b.message)));
    found
}

fn fields_without_effect(route: &HttpRoute) -> Vec<String> {
    let rules = route.rules.iter().enumerate();
    rules
        .flat_map(|(index, rule)| {
            let fields = rule.without_effect.iter();
            fields.map(move |field| format!("spec.rules[{index}].{field} has no effect"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use isthmus_model::{ClusterId, TrustDomain};

    use super::*;

    fn context() -> Context {
        Context::new(ClusterId::new("a").unwrap(), TrustDomain::new("a.demo").unwrap())
    }

    #[test]
    fn objects_as_an_api_server_prints_them_are_taken_unmodified() {
        let text = include_str!("../tests/fixtures/kubectl-get.yaml");
        let report = check(&SourceDocument::split("get.yaml", text), &context());
        assert_eq!(report.errors, []);
        assert_eq!(report.conditions, []);
        assert_eq!((report.objects, report.notices.len()), (8, 0));
        let warnings: Vec<_> = report.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn a_report_has_errors_conditions_and_warnings_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n\
            ---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 0}]}\n\
            ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {}\n\
            ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: s}\nspec: {parentRefs: [{name: g}]}\n\
            ---\napiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {name: x}\n\
            ---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n";
        fs::write(dir.path().join("a.yaml"), text).unwrap();
        let report = check_directory(dir.path(), &context()).unwrap();
        assert!(!report.is_clean());
        assert_eq!((report.objects, report.errors.len(), report.notices.len()), (4, 1, 1));
        assert_eq!(report.conditions.len(), 1, "{:?}", report.conditions);
        let warnings: Vec<_> = report.warnings.iter().map(ToString::to_string).collect();
        let want = [
            "HTTPRoute default/r: has no parentRefs and is attached nowhere",
            "Service default/a: has no endpoint that takes requests",
            "ServiceExport default/x: Service default/x does not exist",
        ];
        assert_eq!(warnings, want);
        assert!(check_directory(&dir.path().join("absent"), &context()).is_err());
    }

    #[tokio::test]
    async fn an_edit_of_a_watched_file_changes_the_objects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let service = |port: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n"
            )
        };
        fs::write(&path, service("1")).unwrap();
        let mut source = crate::Directory::watch(dir.path()).unwrap();
        let mut index = Index::new();
        assert!(index.apply(&source.next().await, 0).changed);
        for (text, changed, errors) in [
            (service("2"), true, 0),
            (service("x"), false, 1),
            ("{".into(), false, 1),
            (service("3"), true, 0),
        ] {
            fs::write(dir.path().join("new.tmp"), text).unwrap();
            fs::rename(dir.path().join("new.tmp"), &path).unwrap();
            let outcome = index.apply(&source.next().await, 0);
            assert_eq!((outcome.changed, outcome.errors.len()), (changed, errors));
        }
        assert_eq!(index.objects().services.values().next().unwrap().ports[0].number, 3);
    }
}
