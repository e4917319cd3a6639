//! The layers: which crate may depend on which.
//!
//! `cargo metadata` tells what every manifest asks for; [`layers`] says what it may ask
//! for. Development and build dependencies are held to the same layers, because a test that
//! reaches over a layer shows that the layer does not hold. A path inside the workspace
//! that the table does not know is a problem too, so a new crate has to choose its layer.

mod layers;
mod manifest;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::deps::manifest::{Crate, Dependency, Kind};
use crate::problem::Problem;
use crate::repository::Repository;

/// Runs `cargo metadata` for the workspace at `root`, without the network.
pub(crate) fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

/// Every dependency that the layers forbid. `repository` serves to find the line.
///
/// # Errors
///
/// The metadata does not have the shape that cargo documents.
pub(crate) fn check(metadata: &Value, repository: &Repository) -> anyhow::Result<Vec<Problem>> {
    let crates = manifest::parse(metadata)?;
    let mut problems = Vec::new();
    for owner in &crates {
        let Some(allowed) = layers::allowed(&owner.folder) else {
            let message = format!("crate {owner} has no layer: add it to xtask/src/deps/layers.rs");
            problems.push(Problem::new(&owner.manifest, 1, message));
            continue;
        };
        for dependency in &owner.dependencies {
            let message = match &dependency.folder {
                Some(folder) => forbidden_edge(owner, dependency, folder, allowed),
                None => forbidden_package(owner, dependency),
            };
            if let Some(message) = message {
                let line = manifest::line_of(repository, owner, dependency);
                problems.push(Problem::new(&owner.manifest, line, message));
            }
        }
        problems.extend(reached(owner, &crates));
    }
    Ok(problems)
}

fn forbidden_edge(
    owner: &Crate,
    dependency: &Dependency,
    folder: &str,
    allowed: &[&str],
) -> Option<String> {
    if allowed.contains(&folder) {
        return None;
    }
    let allowed =
        if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
    Some(format!(
        "crate {owner} must not depend on {folder} ({}); allowed: {allowed}",
        dependency.name
    ))
}

fn forbidden_package(owner: &Crate, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let development = dependency.kind == Kind::Development;
    if layers::is_data_plane(&owner.folder) && layers::KUBERNETES.contains(&name) {
        return Some(format!("crate {owner} is data plane and must not know `{name}`"));
    }
    if owner.folder == "core/model" && !development && !layers::MODEL_PACKAGES.contains(&name) {
        let allowed = layers::MODEL_PACKAGES.join(", ");
        return Some(format!("crate {owner} must not depend on `{name}`; allowed: {allowed}"));
    }
    if name == layers::ANYHOW && !development && !layers::PROGRAMS.contains(&owner.folder.as_str())
    {
        return Some(format!("crate {owner} is a library: `{name}` is for programs and tests"));
    }
    None
}

/// Whether a data-plane crate is given a Kubernetes client through another of our crates.
/// Optional dependencies do not count: they are switched on by programs.
fn reached(owner: &Crate, crates: &[Crate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !layers::is_data_plane(&owner.folder) {
        return problems;
    }
    let mut seen = vec![owner.folder.as_str()];
    let mut next = 0;
    while let Some(folder) = seen.get(next).copied() {
        next += 1;
        let Some(current) = crates.iter().find(|candidate| candidate.folder == folder) else {
            continue;
        };
        for dependency in current.dependencies.iter().filter(|dependency| dependency.is_firm()) {
            let name = dependency.name.as_str();
            match dependency.folder.as_deref() {
                Some(folder) if !seen.contains(&folder) => seen.push(folder),
                None if next > 1 && layers::KUBERNETES.contains(&name) => {
                    let message = format!(
                        "crate {owner} is data plane and must not reach `{name}` through {current}"
                    );
                    problems.push(Problem::new(&owner.manifest, 1, message));
                }
                Some(_) | None => {}
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
