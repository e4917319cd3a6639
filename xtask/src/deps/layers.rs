//! The layers as a table, from the bottom to the top.

/// Each crate, by its folder, and the crates of ours that it may depend on.
const LAYERS: &[(&str, &[&str])] = &[
    ("core/model", &[]),
    ("core/runtime", &["core/model"]),
    ("core/telemetry", &["core/model", "core/runtime"]),
    ("certs", &["core/model", "core/runtime"]),
    ("core/hbone", &["core/model", "core/runtime", "certs"]),
    ("core/discovery", &["core/model", "core/runtime", "certs"]),
    ("core/proxy", &["core/model", "core/runtime", "core/telemetry", "certs", "core/hbone"]),
    ("core/link", &["core/model", "core/runtime", "core/telemetry", "certs"]),
    ("config", &["core/model"]),
    (
        "federation",
        &[
            "core/model",
            "config",
            "core/discovery",
            "certs",
            "core/hbone",
            "core/runtime",
            "core/telemetry",
        ],
    ),
    (
        "kubernetes",
        &["core/model", "config", "certs", "federation", "core/runtime", "core/telemetry"],
    ),
    ("dns", &["core/model", "core/discovery", "certs", "core/runtime", "core/telemetry"]),
    (
        "sidecar",
        &[
            "core/model",
            "core/proxy",
            "core/hbone",
            "core/discovery",
            "certs",
            "core/runtime",
            "core/telemetry",
        ],
    ),
    (
        "gateway",
        &[
            "core/model",
            "core/proxy",
            "core/hbone",
            "core/link",
            "core/discovery",
            "certs",
            "core/runtime",
            "core/telemetry",
        ],
    ),
    (
        "cli",
        &[
            "core/model",
            "core/runtime",
            "core/telemetry",
            "certs",
            "core/hbone",
            "core/discovery",
            "core/proxy",
            "core/link",
            "config",
            "kubernetes",
            "federation",
            "dns",
            "sidecar",
            "gateway",
        ],
    ),
    ("xtask", &[]),
];

/// What only the controller's side may know.
pub(super) const KUBERNETES: &[&str] =
    &["gateway-api", "k8s-openapi", "kube", "kube-client", "kube-core", "kube-runtime"];

/// All that the model may be built from.
pub(super) const MODEL_PACKAGES: &[&str] = &["http", "regex", "serde", "thiserror"];

/// The opaque error type, which libraries do not use.
pub(super) const ANYHOW: &str = "anyhow";

/// The crates that are programs.
pub(super) const PROGRAMS: &[&str] = &["cli", "xtask"];

/// What the crate in `folder` may depend on, or `None` for a crate without a layer.
pub(super) fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    LAYERS.iter().find(|(name, _)| *name == folder).map(|(_, allowed)| *allowed)
}

/// Whether the crate runs where requests pass.
pub(super) fn is_data_plane(folder: &str) -> bool {
    folder.starts_with("core/") || folder == "gateway" || folder == "sidecar"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_point_downwards_only() {
        for (index, (folder, allowed)) in LAYERS.iter().enumerate() {
            for below in *allowed {
                let position = LAYERS.iter().position(|(name, _)| name == below);
                assert!(position.is_some_and(|at| at < index), "{folder} -> {below}");
            }
        }
    }
}
