//! The files of `examples/demo`, built into the binary, so that the demo needs no
//! checkout; and the folder of one run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The folder of one run; removed at the end unless it is kept.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    keep: bool,
}

impl Folder {
    /// Makes the folder: `keep`, which must not exist or be empty, or a temporary one.
    pub(crate) fn new(keep: Option<&Path>) -> Result<Self> {
        if let Some(root) = keep {
            let root = std::path::absolute(root)?;
            fs::create_dir_all(&root)
                .with_context(|| format!("cannot make the folder {}", root.display()))?;
            if fs::read_dir(&root)?.next().is_some() {
                bail!("--keep {}: the folder is not empty", root.display());
            }
            return Ok(Self { root, keep: true });
        }
        let made = tempfile::Builder::new().prefix("isthmus-demo-").tempdir();
        let root = made.context("cannot make a temporary folder")?.keep();
        Ok(Self { root, keep: false })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// The settings file of a cluster.
    pub(crate) fn settings(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster).join(SETTINGS)
    }

    /// Fills it with the files that are built in, or with those of a folder.
    pub(crate) fn fill(&self, from: Option<&Path>) -> Result<()> {
        match from {
            None => FILES.iter().try_for_each(|(path, text)| self.write(Path::new(path), text)),
            Some(from) => self.copy(from, Path::new(""), 0),
        }
    }

    /// Gives `cluster` the trust bundle of `peer` as the ConfigMap that its ClusterLink
    /// names.
    pub(crate) fn write_bundle(&self, cluster: &str, peer: &str, jwks: &str) -> Result<()> {
        let document = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": peer, "namespace": "isthmus-system"},
            "data": {"bundle.json": jwks},
        });
        let path = Path::new(cluster).join(MANIFESTS).join(format!("bundle-{peer}.json"));
        self.write(&path, &serde_json::to_string_pretty(&document)?)
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn copy(&self, from: &Path, below: &Path, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            bail!("{} is nested more than {DEPTH_MAX} folders deep", from.display());
        }
        let folder = from.join(below);
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let below = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.copy(from, &below, depth + 1)?;
            } else {
                let path = entry.path();
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                self.write(&below, &text)?;
            }
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.root)
        {
            tracing::warn!(%error, folder = %self.root.display(), "cannot remove the folder");
        }
    }
}

/// The name of a cluster's settings file in its folder.
pub(crate) const SETTINGS: &str = "cluster.yaml";
const MANIFESTS: &str = "manifests";
const DEPTH_MAX: usize = 8;

/// Names a file below `examples/demo` and its text.
macro_rules! example {
    ($path:literal) => {
        ($path, include_str!(concat!("../../../examples/demo/", $path)))
    };
}

/// Every file of `examples/demo` but its README.
pub(crate) const FILES: [(&str, &str); 11] = [
    example!("demo.yaml"),
    example!("aws-us-east/cluster.yaml"),
    example!("aws-us-east/manifests/gateway.yaml"),
    example!("aws-us-east/manifests/links.yaml"),
    example!("aws-us-east/manifests/shop.yaml"),
    example!("gcp-europe-west/cluster.yaml"),
    example!("gcp-europe-west/manifests/links.yaml"),
    example!("gcp-europe-west/manifests/shop.yaml"),
    example!("onprem/cluster.yaml"),
    example!("onprem/manifests/links.yaml"),
    example!("onprem/manifests/shop.yaml"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::demo::scenario::Scenario;

    fn files(root: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(root).unwrap().display().to_string();
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn every_example_file_is_built_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo");
        let mut on_disk = files(&root);
        on_disk.remove("README.md").unwrap();
        let folder = Folder::new(None).unwrap();
        folder.fill(None).unwrap();
        assert_eq!(files(folder.path()), on_disk);
    }

    #[test]
    fn the_folder_of_a_run_is_removed() {
        let folder = Folder::new(None).unwrap();
        folder.write(Path::new("a/b"), "c").unwrap();
        let path = folder.path().to_path_buf();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_to_keep_must_be_empty() {
        let base = tempfile::tempdir().unwrap();
        let kept = base.path().join("run");
        let folder = Folder::new(Some(&kept)).unwrap();
        folder.fill(None).unwrap();
        drop(folder);
        assert!(kept.join("demo.yaml").exists());
        assert!(Folder::new(Some(&kept)).unwrap_err().to_string().ends_with("is not empty"));
    }

    #[test]
    fn the_manifests_are_valid_but_for_the_bundles_that_the_demo_writes() {
        let scenario = Scenario::parse(FILES[0].1).unwrap();
        let folder = Folder::new(None).unwrap();
        folder.fill(None).unwrap();
        for cluster in &scenario.clusters {
            for peer in scenario.clusters.iter().filter(|peer| peer.name != cluster.name) {
                folder.write_bundle(&cluster.name, &peer.name, r#"{"keys":[]}"#).unwrap();
            }
            let manifests = folder.path().join(&cluster.name).join(MANIFESTS);
            let id = isthmus_model::ClusterId::new(&cluster.name).unwrap();
            let domain = isthmus_model::TrustDomain::new(&format!("{id}.demo")).unwrap();
            let context = isthmus_config::Context::new(id, domain);
            let report = isthmus_config::check_directory(&manifests, &context).unwrap();
            assert!(report.errors.is_empty(), "{}: {:?}", cluster.name, report.errors);
        }
    }
}
