//! The layers over made-up metadata.

use serde_json::json;

use super::*;

/// A crate's folder, and its dependencies as (name, folder or "", kind).
type Sketch<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str)]);

/// The metadata that cargo would print for such crates.
fn metadata_of(crates: &[Sketch<'_>]) -> Value {
    let packages: Vec<Value> = crates
        .iter()
        .map(|(folder, dependencies)| {
            let dependencies: Vec<Value> = dependencies
                .iter()
                .map(|(name, folder, kind)| {
                    let mut entry = json!({ "name": name, "optional": false });
                    if !folder.is_empty() {
                        entry["path"] = json!(format!("/src/{folder}"));
                    }
                    if *kind != "normal" {
                        entry["kind"] = json!(kind);
                    }
                    entry
                })
                .collect();
            json!({
                "name": format!("isthmus-{}", folder.rsplit('/').next().unwrap_or(folder)),
                "manifest_path": format!("/src/{folder}/Cargo.toml"),
                "dependencies": dependencies,
            })
        })
        .collect();
    json!({ "workspace_root": "/src", "packages": packages })
}

fn problems(crates: &[Sketch<'_>], files: &[(&str, &str)]) -> Vec<Problem> {
    check(&metadata_of(crates), &Repository::of(files)).unwrap()
}

#[test]
fn a_forbidden_edge_names_both_crates_and_the_line() {
    let manifest = "\
[package]
name = \"isthmus-gateway\"

[dependencies]
isthmus-model.workspace = true
isthmus-config.workspace = true
";
    let found = problems(
        &[(
            "gateway",
            &[("isthmus-model", "core/model", "normal"), ("isthmus-config", "config", "normal")],
        )],
        &[("gateway/Cargo.toml", manifest)],
    );
    assert_eq!(found.len(), 1);
    let printed = found[0].to_string();
    assert!(
        printed.starts_with(
            "gateway/Cargo.toml:6: crate gateway (isthmus-gateway) must not depend on config \
             (isthmus-config); allowed: core/model"
        ),
        "{printed}"
    );
}

#[test]
fn a_forbidden_edge_for_tests_or_the_build_is_found_too() {
    for kind in ["dev", "build"] {
        let found = problems(&[("federation", &[("isthmus-link", "core/link", kind)])], &[]);
        assert_eq!(found.len(), 1, "{kind}");
    }
}

#[test]
fn allowed_edges_are_silent() {
    let found = problems(
        &[
            ("core/model", &[("serde", "", "normal"), ("serde_json", "", "dev")]),
            ("config", &[("isthmus-model", "core/model", "normal"), ("kube", "", "normal")]),
            ("cli", &[("isthmus-config", "config", "normal"), ("anyhow", "", "normal")]),
            ("core/link", &[("isthmus-certs", "certs", "normal"), ("anyhow", "", "dev")]),
        ],
        &[],
    );
    assert_eq!(found, []);
}

#[test]
fn a_crate_without_a_layer_is_found() {
    let found = problems(&[("shiny", &[])], &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "shiny/Cargo.toml");
}

#[test]
fn kubernetes_in_the_data_plane_is_found() {
    for folder in ["core/proxy", "gateway", "sidecar"] {
        for package in ["kube", "k8s-openapi"] {
            let found = problems(&[(folder, &[(package, "", "normal")])], &[]);
            assert_eq!(found.len(), 1, "{folder} {package}");
        }
    }
}

#[test]
fn kubernetes_behind_another_crate_is_found() {
    let found = problems(
        &[
            ("certs", &[("kube", "", "normal")]),
            ("core/hbone", &[("isthmus-certs", "certs", "normal")]),
            ("core/proxy", &[("isthmus-hbone", "core/hbone", "normal")]),
            ("dns", &[("isthmus-certs", "certs", "normal")]),
        ],
        &[],
    );
    let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["core/hbone/Cargo.toml", "core/proxy/Cargo.toml"]);
    assert!(found[1].message.contains("through certs"), "{}", found[1]);
}

#[test]
fn the_model_is_built_from_four_packages() {
    let found = problems(&[("core/model", &[("tokio", "", "normal")])], &[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("http, regex, serde, thiserror"), "{}", found[0]);
}

#[test]
fn opaque_errors_in_a_library_are_found() {
    let found = problems(&[("certs", &[("anyhow", "", "normal")])], &[]);
    assert_eq!(found.len(), 1);
}

#[test]
fn metadata_of_another_shape_is_an_error() {
    let error = check(&json!({ "packages": [] }), &Repository::default()).unwrap_err();
    assert!(error.to_string().contains("workspace_root"), "{error}");
}
