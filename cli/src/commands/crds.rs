//! `isthmus crds`: the CustomResourceDefinitions of isthmus.io, from types.
//!
//! The types below document the fields for `kubectl explain` and carry defaults, bounds
//! and CEL rules, so the API server refuses what the controller would refuse, with the
//! reason. The rules are those of `config/src/validate`; where an object is legal here
//! and not there, its status says so.
//!
//! What schemars writes is JSON Schema. The API server takes structural schemas, a part of
//! it: [`structural`] gives that part or leaves a keyword away that says nothing there.
//!
//! # Flow
//!
//! 1. `cluster_link`, `gateway_parameters`: the types.
//! 2. `structural`: JSON Schema to a structural schema.
//! 3. [`all`]: the definitions; [`run`] prints them, or writes every generated file of
//!    `deploy/`, which a test compares.

mod cluster_link;

mod gateway_parameters;

mod structural;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::install::values::Values;
use super::output;

/// Prints the definitions, or writes the generated files below a folder.
pub(crate) fn run(folder: Option<&Path>) -> anyhow::Result<ExitCode> {
    if let Some(folder) = folder {
        for (path, text) in files()? {
            std::fs::write(folder.join(path), text)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let texts: Vec<String> = all().iter().map(document).collect::<Result<_, _>>()?;
    output::print(&texts.concat())?;
    Ok(ExitCode::SUCCESS)
}

/// Every definition, in the order of their names.
pub(crate) fn all() -> Vec<Value> {
    vec![cluster_link::definition(), gateway_parameters::definition()]
}

/// Every generated file below `deploy/`, with its text.
fn files() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for crd in all() {
        let name = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let text = format!("# Generated: isthmus crds --write deploy\n{}", document(&crd)?);
        for folder in ["crds", "helm/isthmus/crds"] {
            files.push((Path::new(folder).join(format!("isthmus.io_{name}.yaml")), text.clone()));
        }
    }
    let schema = values_schema();
    files.push(("helm/isthmus/values.schema.json".into(), format!("{schema:#}\n")));
    Ok(files)
}

fn document(crd: &Value) -> anyhow::Result<String> {
    Ok(format!("---\n{}", serde_saphyr::to_string(crd)?))
}

/// The schema of the chart's values, as Helm reads it.
fn values_schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Values>().to_value();
    // Helm adds `global` for the charts that contain this one.
    schema["properties"]["global"] = json!({ "type": "object" });
    schema["properties"]["cluster"]["properties"]["name"]["minLength"] = json!(1);
    schema["properties"]["cluster"]["required"] = json!(["name"]);
    schema
}

/// The structural schema of a type.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    structural::structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

/// One version of one kind.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    scope: &'static str,
    description: &'static str,
    spec: Value,
    /// Whether an object without a spec is none.
    is_spec_required: bool,
    status: Option<Value>,
    columns: Value,
}

impl Definition {
    fn to_value(&self) -> Value {
        let mut schema = json!({
            "description": self.description,
            "type": "object",
            "properties": {
                "apiVersion": { "type": "string" },
                "kind": { "type": "string" },
                "metadata": { "type": "object" },
                "spec": self.spec,
            },
        });
        if self.is_spec_required {
            schema["required"] = json!(["spec"]);
        }
        let mut version = json!({
            "name": "v1alpha1", "served": true, "storage": true,
            "additionalPrinterColumns": self.columns,
        });
        if let Some(status) = &self.status {
            schema["properties"]["status"] = status.clone();
            version["subresources"] = json!({ "status": {} });
        }
        version["schema"] = json!({ "openAPIV3Schema": schema });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.isthmus.io", self.plural),
                "labels": { "app.kubernetes.io/name": "isthmus" },
            },
            "spec": {
                "group": "isthmus.io",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": [self.short],
                    "categories": ["isthmus"],
                },
                "scope": self.scope,
                "versions": [version],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_repository_are_the_generated_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        for (path, text) in files().unwrap() {
            let found = std::fs::read_to_string(folder.join(&path)).unwrap_or_default();
            assert!(found == text, "{}: run isthmus crds --write deploy", path.display());
        }
    }

    /// Keywords that a structural schema must not have where it has properties.
    fn offences(path: &str, schema: &Value, found: &mut Vec<String>) {
        for keyword in ["$ref", "$schema", "definitions", "oneOf", "allOf", "nullable", "const"] {
            if schema.get(keyword).is_some() {
                found.push(format!("{path}: {keyword}"));
            }
        }
        let is_either = schema.get("x-kubernetes-int-or-string").is_some();
        if schema.get("anyOf").is_some() && !is_either {
            found.push(format!("{path}: anyOf"));
        }
        let has_type = schema.get("type").is_some_and(Value::is_string);
        if !has_type && !is_either {
            found.push(format!("{path}: type"));
        }
        if schema.get("description").is_none() && path.contains("/spec/") {
            found.push(format!("{path}: description"));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            offences(&format!("{path}/{name}"), field, found);
        }
        for keyword in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(keyword).filter(|inner| inner.is_object()) {
                let mut inner = inner.clone();
                // Elements of lists and maps are documented by their list or map.
                inner["description"] = json!("element");
                offences(&format!("{path}/{keyword}"), &inner, found);
            }
        }
    }

    #[test]
    fn schemas_are_structural_and_every_field_is_explained() {
        for crd in all() {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut found = Vec::new();
            offences("", schema, &mut found);
            assert!(found.is_empty(), "{}: {found:#?}", crd["metadata"]["name"]);
        }
    }
}
