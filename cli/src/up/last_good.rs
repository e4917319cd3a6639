//! The manifests as they were when they were good, kept over restarts.
//!
//! An object that becomes invalid keeps its last good version; with this file it keeps it
//! through a restart of the process as well. What counts is the file: its documents are
//! remembered when all of them are good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use isthmus_config::{ConfigError, Content, Origin, SourceDocument};
use isthmus_runtime::atomic_file::{self, Access};
use serde::{Deserialize, Serialize};

/// The documents of every file that was good when it was last read.
#[derive(Debug)]
pub(crate) struct LastGood {
    path: PathBuf,
    files: BTreeMap<String, Vec<Document>>,
}

/// One document of a file. It may be a Secret, so it is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    number: u32,
    line: u64,
    text: String,
}

impl LastGood {
    /// Reads what was saved; nothing when it cannot be read.
    pub(crate) fn load(path: PathBuf) -> Self {
        let files = match std::fs::read(&path) {
            Err(_) => BTreeMap::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "good manifests cannot be read");
                BTreeMap::new()
            }),
        };
        Self { path, files }
    }

    /// The documents, to be applied before those of the folder.
    pub(crate) fn documents(&self) -> Vec<SourceDocument> {
        let files = self.files.iter();
        files.flat_map(|(file, documents)| documents.iter().map(|d| d.source(file))).collect()
    }

    /// Remembers the files without an error and forgets those that are gone.
    pub(crate) fn save(&mut self, documents: &[SourceDocument], errors: &[ConfigError]) {
        let bad: BTreeSet<&str> = errors.iter().map(|error| &*error.origin.file).collect();
        if bad.contains(WHOLE_SOURCE) {
            return;
        }
        let mut files: BTreeMap<String, Vec<Document>> = BTreeMap::new();
        for (file, former) in self.files.iter().filter(|(file, _)| bad.contains(file.as_str())) {
            files.insert(file.clone(), former.clone());
        }
        for document in documents.iter().filter(|d| !bad.contains(&*d.origin.file)) {
            if let Content::Text { text, line } = &document.content {
                let (number, line, text) = (document.origin.document, *line, text.clone());
                let file = files.entry(document.origin.file.to_string()).or_default();
                file.push(Document { number, line, text });
            }
        }
        if files == self.files {
            return;
        }
        self.files = files;
        if let Err(error) = write(&self.path, &self.files) {
            tracing::warn!(path = %self.path.display(), %error, "good manifests are not saved");
        }
    }
}

impl Document {
    fn source(&self, file: &str) -> SourceDocument {
        let content = Content::Text { text: self.text.clone(), line: self.line };
        SourceDocument { origin: Origin::new(file, self.number), content }
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({}, {} bytes)", self.number, self.text.len())
    }
}

fn write(path: &Path, files: &BTreeMap<String, Vec<Document>>) -> anyhow::Result<()> {
    atomic_file::write(path, &serde_json::to_vec(files)?, Access::Owner)?;
    Ok(())
}

/// The name of the file in an error about the whole folder.
const WHOLE_SOURCE: &str = "";

#[cfg(test)]
mod tests {
    use isthmus_config::Index;

    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

    #[test]
    fn what_was_good_is_remembered_over_a_restart_and_what_is_gone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifests.json");
        let apply = |index: &mut Index, last: &mut LastGood, files: &[(&str, &str)]| {
            let split = files.iter().flat_map(|(file, text)| SourceDocument::split(file, text));
            let documents: Vec<SourceDocument> = split.collect();
            let outcome = index.apply(&documents, 1);
            last.save(&documents, &outcome.errors);
            index.objects().namespaces.len()
        };
        let other = GOOD.replace("name: a", "name: b");
        let (mut index, mut last) = (Index::default(), LastGood::load(path.clone()));
        assert_eq!(apply(&mut index, &mut last, &[("1.yaml", GOOD), ("2.yaml", &other)]), 2);
        assert_eq!(apply(&mut index, &mut last, &[("1.yaml", "kind: ["), ("2.yaml", &other)]), 2);

        let (mut index, mut last) = (Index::default(), LastGood::load(path.clone()));
        index.apply(&last.documents(), 1);
        assert_eq!(apply(&mut index, &mut last, &[("1.yaml", "kind: [")]), 1);

        let (mut index, mut last) = (Index::default(), LastGood::load(path));
        index.apply(&last.documents(), 1);
        assert_eq!(apply(&mut index, &mut last, &[]), 0);
        assert_eq!(last.documents().len(), 0);
    }
}
