//! The files of the repository, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::source;

/// Every text file that git tracks, or would track after `git add`, by its path relative
/// to the root. Binary files are known by name and have no text.
#[derive(Debug, Default)]
pub(crate) struct Repository {
    files: BTreeMap<String, Option<String>>,
    test_modules: BTreeSet<String>,
}

impl Repository {
    /// Reads the working tree at `root`. Files that git knows and the tree lacks (deleted,
    /// not yet committed) are passed over.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(root)
            .output()
            .context("cannot run git ls-files")?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut files = Vec::new();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let path = root.join(name);
            if path.is_file() {
                let bytes = std::fs::read(&path).with_context(|| format!("cannot read {name}"))?;
                files.push((name.to_owned(), String::from_utf8(bytes).ok()));
            }
        }
        Ok(Self::new(files))
    }

    fn new(files: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let files: BTreeMap<_, _> = files.into_iter().collect();
        let test_modules = files
            .iter()
            .filter_map(|(path, text)| Some((path, text.as_deref()?)))
            .filter(|(path, _)| path.ends_with(".rs"))
            .flat_map(|(path, text)| source::test_modules(path, text))
            .collect();
        Self { files, test_modules }
    }

    /// A repository of the given paths and texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))))
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Every path, binary files included.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Every text file: path and text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Every Rust file: path and text.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Whether the whole file is compiled for tests only: it is named `tests.rs`, lies
    /// under a folder `tests/`, or is (part of) a module declared under `#[cfg(test)]`.
    pub(crate) fn is_test(&self, path: &str) -> bool {
        let mut folders = path.split('/').rev();
        let name = folders.next().unwrap_or_default();
        name == "tests.rs"
            || folders.any(|folder| folder == "tests")
            || self.test_modules.iter().any(|module| {
                path.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_known_by_name_folder_and_declaration() {
        let repository = Repository::of(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod testing;\nmod real;\n"),
            ("a/src/deep.rs", "#[cfg(test)]\n#[rustfmt::skip]\npub(crate) mod probe;\n"),
        ]);
        for path in [
            "a/src/testing.rs",
            "a/src/testing/world.rs",
            "a/src/deep/probe.rs",
            "a/src/real/tests.rs",
            "a/tests/it/main.rs",
            "tests/e2e/main.rs",
        ] {
            assert!(repository.is_test(path), "{path}");
        }
        for path in ["a/src/real.rs", "a/src/testing_ground.rs", "a/src/lib.rs", "b/src/testing.rs"]
        {
            assert!(!repository.is_test(path), "{path}");
        }
    }
}
