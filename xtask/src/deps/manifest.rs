//! What `cargo metadata` says about the crates of the workspace.

use std::fmt;

use anyhow::Context as _;
use serde_json::Value;

use crate::repository::Repository;

/// One crate of the workspace.
#[derive(Debug)]
pub(super) struct Crate {
    pub(super) name: String,
    /// Relative to the root, as in `core/model`.
    pub(super) folder: String,
    /// The path of its Cargo.toml, relative to the root.
    pub(super) manifest: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependency tables.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// The folder relative to the root, for a dependency by path.
    pub(super) folder: Option<String>,
    pub(super) kind: Kind,
    pub(super) optional: bool,
}

/// The table that a dependency stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Build,
    Development,
    Normal,
}

impl Dependency {
    /// Whether every build of the crate contains the dependency.
    pub(super) fn is_firm(&self) -> bool {
        self.kind == Kind::Normal && !self.optional
    }
}

impl fmt::Display for Crate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.folder, self.name)
    }
}

/// Reads the output of `cargo metadata --format-version 1`.
pub(super) fn parse(metadata: &Value) -> anyhow::Result<Vec<Crate>> {
    let root = text(metadata, "workspace_root")?;
    array(metadata, "packages")?.iter().map(|package| parse_crate(package, root)).collect()
}

fn parse_crate(package: &Value, root: &str) -> anyhow::Result<Crate> {
    let manifest = relative(text(package, "manifest_path")?, root);
    let folder = manifest.strip_suffix("/Cargo.toml").unwrap_or(".").to_owned();
    let dependencies =
        array(package, "dependencies")?.iter().map(|entry| parse_dependency(entry, root));
    Ok(Crate {
        name: text(package, "name")?.to_owned(),
        folder,
        dependencies: dependencies.collect::<anyhow::Result<_>>()?,
        manifest,
    })
}

fn parse_dependency(entry: &Value, root: &str) -> anyhow::Result<Dependency> {
    let kind = match entry.get("kind").and_then(Value::as_str) {
        None | Some("normal") => Kind::Normal,
        Some("build") => Kind::Build,
        Some("dev") => Kind::Development,
        Some(other) => anyhow::bail!("cargo metadata: unknown kind of dependency {other}"),
    };
    Ok(Dependency {
        name: text(entry, "name")?.to_owned(),
        folder: entry.get("path").and_then(Value::as_str).map(|path| relative(path, root)),
        kind,
        optional: entry.get("optional").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// The line of the crate's manifest that names the dependency; the first line if the
/// dependency is written in a way that is not recognised.
pub(super) fn line_of(repository: &Repository, owner: &Crate, dependency: &Dependency) -> usize {
    let text = repository.text(&owner.manifest).unwrap_or_default();
    let names = |line: &str| {
        line.trim_start()
            .trim_start_matches('"')
            .strip_prefix(&dependency.name)
            .is_some_and(|rest| rest.starts_with(['.', ' ', '=', '"']))
            || line.trim_end().ends_with(&format!("dependencies.{}]", dependency.name))
    };
    // Names are looked for below the first table of dependencies only: `name`, `version`
    // and the like above it are keys of the package.
    let start = text.lines().position(|line| line.contains("dependencies")).unwrap_or(0);
    text.lines().skip(start).position(names).map_or(1, |at| start + at + 1)
}

fn relative(path: &str, root: &str) -> String {
    path.strip_prefix(root).map_or(path, |rest| rest.trim_start_matches('/')).to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("cargo metadata: no `{key}`"))
}

fn array<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).with_context(|| format!("cargo metadata: no `{key}`"))
}
