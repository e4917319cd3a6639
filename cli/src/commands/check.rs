//! `isthmus up --check` and `isthmus check`: everything that can be said of settings and
//! manifests without starting anything. [`cluster`] asks an API server instead.
//!
//! What other clusters export is not known here. A ServiceImport that a route names is
//! therefore taken to exist, with the ports that the route names.

pub(crate) mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use isthmus_config::objects::{BackendTargetRef, ParentTarget};
use isthmus_config::source::directory;
use isthmus_config::{Context, Index, Objects, Report, SourceDocument};
use isthmus_model::{AppProtocol, Service, ServiceKey, ServicePort, ServiceScope, Transport};
use serde_json::{Value, json};

use super::output::{self, Paint};
use crate::args::Output;
use crate::settings::{Settings, SettingsError};

/// Checks settings and manifests; fails if something would not work.
pub(crate) fn run(file: &Path, form: Output) -> anyhow::Result<ExitCode> {
    let findings = findings(file)?;
    if let (Findings::Settings(error), Output::Table | Output::Wide) = (&findings, form) {
        anyhow::bail!("{error}");
    }
    output::show(&findings.to_json(), form, |paint, _| findings.to_text(paint))?;
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found.
#[derive(Debug)]
enum Findings {
    /// The settings are not valid, so the manifests were not looked at.
    Settings(String),
    /// The settings are valid.
    Manifests { folder: String, report: Report, assumed: Vec<String> },
}

fn findings(file: &Path) -> anyhow::Result<Findings> {
    let settings = match Settings::load(file) {
        Ok(settings) => settings,
        Err(error @ SettingsError::Invalid { .. }) => {
            return Ok(Findings::Settings(error.to_string()));
        }
        Err(error @ SettingsError::Read { .. }) => return Err(error.into()),
    };
    let documents = directory::read(&settings.manifests)?;
    let mut context = settings.context();
    let assumed = assume_imports(&documents, &mut context);
    let report = isthmus_config::check(&documents, &context);
    Ok(Findings::Manifests { folder: settings.manifests.display().to_string(), report, assumed })
}

/// Adds the imports that routes name to the context, and lists them.
fn assume_imports(documents: &[SourceDocument], context: &mut Context) -> Vec<String> {
    let mut index = Index::new();
    index.apply(documents, 0);
    let named = named_imports(index.objects());
    let list = named.keys().map(ToString::to_string).collect();
    for (key, ports) in named {
        let port = |number| ServicePort {
            name: None,
            number,
            transport: Transport::Tcp,
            app: AppProtocol::Http,
            app_protocol: None,
        };
        let service = Service {
            key: key.clone(),
            addresses: Vec::new(),
            headless: false,
            ports: ports.into_iter().map(port).collect(),
            clusters: Vec::new(),
        };
        context.imports.insert(key, service);
    }
    list
}

fn named_imports(objects: &Objects) -> BTreeMap<ServiceKey, BTreeSet<u16>> {
    let mut named: BTreeMap<ServiceKey, BTreeSet<u16>> = BTreeMap::new();
    let mut note = |key: &ServiceKey, port: Option<u16>| {
        if key.scope == ServiceScope::ClusterSet {
            named.entry(key.clone()).or_default().extend(port);
        }
    };
    for route in objects.http_routes.values() {
        for parent in &route.parents {
            if let ParentTarget::Service(key) = &parent.target {
                note(key, parent.port);
            }
        }
        for backend in route.rules.iter().flat_map(|rule| &rule.backends) {
            if let BackendTargetRef::Service(key) = &backend.target {
                note(key, backend.port);
            }
        }
    }
    named
}

impl Findings {
    fn is_clean(&self) -> bool {
        match self {
            Self::Settings(_) => false,
            Self::Manifests { report, .. } => report.is_clean(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Settings(error) => {
                let errors: Vec<&str> = error.lines().collect();
                json!({"clean": false, "settingsErrors": errors})
            }
            Self::Manifests { folder, report, assumed } => json!({
                "clean": report.is_clean(),
                "settingsErrors": [],
                "manifests": folder,
                "objects": report.objects,
                "errors": texts(&report.errors),
                "conditions": texts(&report.conditions),
                "warnings": texts(&report.warnings),
                "passedOver": passed_over(report),
                "assumed": assumed,
            }),
        }
    }

    fn to_text(&self, paint: Paint) -> String {
        let mut text = String::new();
        let mut add = |word: String, what: &str| {
            text.push_str(&format!("{word} {}\n", output::clean(what)));
        };
        match self {
            Self::Settings(error) => {
                for line in error.lines() {
                    add(paint.bad("error:"), line);
                }
            }
            Self::Manifests { folder, report, assumed } => {
                for line in texts(&report.errors).iter().chain(&texts(&report.conditions)) {
                    add(paint.bad("error:"), line);
                }
                for line in texts(&report.warnings) {
                    add(paint.warn("warning:"), &line);
                }
                for line in passed_over(report) {
                    add("note:".to_owned(), &format!("{line} is passed over"));
                }
                for line in assumed {
                    add("note:".to_owned(), &format!("{line} is taken to exist"));
                }
                let count = format!(
                    "{} valid objects in {folder}; {} errors, {} warnings",
                    report.objects,
                    report.errors.len() + report.conditions.len(),
                    report.warnings.len()
                );
                let clean = report.is_clean();
                add(if clean { paint.good("ok:") } else { paint.bad("failed:") }, &count);
            }
        }
        text
    }
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn passed_over(report: &Report) -> Vec<String> {
    report.notices.iter().map(|notice| format!("{}: {}", notice.origin, notice.kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &str, manifests: &str) -> (ExitCode, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.yaml");
        std::fs::write(&file, settings).unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        std::fs::write(folder.path().join("manifests/a.yaml"), manifests).unwrap();
        let text = findings(&file).unwrap().to_text(Paint { on: false });
        let text = text.replace(&folder.path().display().to_string(), "");
        (run(&file, Output::Json).unwrap(), text)
    }

    const SETTINGS: &str = "cluster: a\nclusterset: demo\n";

    #[test]
    fn a_valid_folder_passes() {
        let (code, text) = check(
            SETTINGS,
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n\
            ---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n",
        );
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        let want = "note: a.yaml document 2: batch/v1 Job is passed over\n\
            ok: 1 valid objects in /manifests; 0 errors, 0 warnings\n";
        assert_eq!(text, want);
    }

    #[test]
    fn an_import_of_another_cluster_is_taken_to_exist() {
        let (code, text) = check(
            SETTINGS,
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
            metadata: {name: r, namespace: shop}\nspec:\n  parentRefs:\n  \
            - {group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}\n  \
            rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}]}]\n",
        );
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        assert!(text.contains("note: ServiceImport shop/cart is taken to exist"), "{text}");
        assert!(text.contains("note: ServiceImport shop/web is taken to exist"), "{text}");
    }

    #[test]
    fn broken_objects_references_and_settings_fail() {
        let service =
            "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 0}]}\n";
        let (code, text) = check(SETTINGS, service);
        assert_eq!(code, ExitCode::FAILURE);
        assert!(
            text.starts_with("error: a.yaml document 1: Service default/b: spec.ports[0].port"),
            "{text}"
        );
        let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
            metadata: {name: r}\nspec: {parentRefs: [{name: absent}]}\n";
        let (code, text) = check(SETTINGS, route);
        assert_eq!(code, ExitCode::FAILURE, "{text}");
        let (code, text) = check("cluster: a\nclusterset: demo\nworkers: x\ncolour: red\n", "");
        assert_eq!(code, ExitCode::FAILURE);
        assert!(text.contains("/cluster.yaml:3: workers: "), "{text}");
        assert!(findings(Path::new("/nowhere/cluster.yaml")).is_err());
    }
}
