//! A directory of manifests, read whole and watched.
//!
//! Directories are watched, not files: an editor that writes a new file and renames it
//! over the old one, and a ConfigMap mount that swaps its `..data` link, change entries
//! of a directory. Events only say *that* something has changed; they are gathered for a
//! moment, and then everything is read again. Where the system gives no events the
//! directory is looked at every two seconds; where it does, every thirty, in case one
//! was lost (a network file system, a root directory that was replaced).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::printable;
use crate::source::{Content, SourceDocument};

/// Why a directory cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The path is not a directory that can be read.
    #[error("{} cannot be read as a directory", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Reads every manifest below a directory, ordered by path.
///
/// Files end in `.yaml`, `.yml` or `.json`; names that begin with a dot are passed over;
/// symbolic links are followed. A file that cannot be read, or is too large, is one
/// [`Content::Unreadable`] document, so that what it held before stays.
///
/// # Errors
///
/// [`DirectoryError::Open`] when the directory itself cannot be read.
pub fn read(root: &Path) -> Result<Vec<SourceDocument>, DirectoryError> {
    let open = |source| DirectoryError::Open { path: root.to_owned(), source };
    fs::read_dir(root).map_err(open)?;
    let mut walk = Walk { root, visited: BTreeSet::new(), files: Vec::new(), problems: Vec::new() };
    walk.directory(root, 0);
    let mut documents = walk.problems;
    walk.files.sort();
    let mut bytes = 0;
    for path in &walk.files {
        let name = relative(root, path);
        match read_file(path, bytes) {
            Ok(text) => {
                bytes += text.len();
                documents.extend(SourceDocument::split(&name, &text));
            }
            Err(message) => documents.push(SourceDocument::unreadable(&name, message)),
        }
    }
    documents.sort_by(|a, b| a.origin.cmp(&b.origin));
    if documents.len() > DOCUMENTS_MAX {
        documents.truncate(DOCUMENTS_MAX);
        let message = format!("there are more than {DOCUMENTS_MAX} documents");
        documents.push(SourceDocument::unreadable("", message));
    }
    Ok(documents)
}

/// A directory that is watched.
///
/// Dropping it ends the watch.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    last: Option<u64>,
}

impl Directory {
    /// Starts watching. The first [`Directory::next`] returns at once.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Open`] when the path is not a directory that can be read.
    pub fn watch(root: &Path) -> Result<Self, DirectoryError> {
        let open = |source| DirectoryError::Open { path: root.to_owned(), source };
        fs::read_dir(root).map_err(open)?;
        // One place is enough: an event only says that something has changed.
        let (sender, events) = mpsc::channel(1);
        let changed = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matters(&event.kind)) {
                return;
            }
            // A full channel means that a change is already waiting to be seen.
            let _already_waiting = sender.try_send(());
        };
        let watcher = notify::recommended_watcher(changed).and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file events: polling every 2 s"))
            .ok();
        Ok(Self { root: root.to_owned(), watcher, events, last: None })
    }

    /// Whether the system gives events; otherwise the directory is polled.
    pub fn has_events(&self) -> bool {
        self.watcher.is_some()
    }

    /// The next state that differs from the one before.
    ///
    /// While the directory itself is gone there is no next state.
    ///
    /// # Cancel safety
    ///
    /// Cancelling loses nothing: a change that was seen and not returned is found by the
    /// next call.
    pub async fn next(&mut self) -> Vec<SourceDocument> {
        loop {
            if let Some(documents) = self.read_changed().await {
                return documents;
            }
            self.wait().await;
        }
    }

    async fn read_changed(&mut self) -> Option<Vec<SourceDocument>> {
        let root = self.root.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let documents = read(&root)?;
            let hash = fingerprint(&documents);
            Ok::<_, DirectoryError>((documents, hash))
        });
        match reading.await {
            Ok(Ok((documents, hash))) => {
                let changed = self.last != Some(hash);
                self.last = Some(hash);
                changed.then_some(documents)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the manifests cannot be read: the last state stays");
                None
            }
            Err(error) => {
                tracing::error!(%error, "reading the manifests was ended");
                None
            }
        }
    }

    /// Waits for a change, and then until the changes pause.
    async fn wait(&mut self) {
        let interval = if self.watcher.is_some() { RESCAN_INTERVAL } else { POLL_INTERVAL };
        match tokio::time::timeout(interval, self.events.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return tokio::time::sleep(POLL_INTERVAL).await,
            Err(_elapsed) => return,
        }
        for _ in 0..QUIET_ROUNDS_MAX {
            if tokio::time::timeout(QUIET, self.events.recv()).await.is_err() {
                return;
            }
        }
    }
}

/// Reading files makes access events, which must not cause reading.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Other
        | EventKind::Remove(_) => true,
    }
}

struct Walk<'r> {
    root: &'r Path,
    /// Real paths of directories, so that a link to a parent ends.
    visited: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    problems: Vec<SourceDocument>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) {
        let known = fs::canonicalize(path).map(|real| !self.visited.insert(real));
        if known.unwrap_or(true) {
            return;
        }
        if depth > DEPTH_MAX {
            return self.problem(path, format!("more than {DEPTH_MAX} folders inside each other"));
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.problem(path, error.to_string()),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let hidden =
                path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            if path.is_dir() {
                self.directory(&path, depth + 1);
            } else if is_manifest(&path) {
                if self.files.len() >= FILES_MAX {
                    let root = self.root;
                    return self.problem(root, format!("there are more than {FILES_MAX} files"));
                }
                self.files.push(path);
            }
        }
    }

    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push(SourceDocument::unreadable(&relative(self.root, path), message));
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("json" | "yaml" | "yml"))
}

fn relative(root: &Path, path: &Path) -> String {
    printable(&path.strip_prefix(root).unwrap_or(path).to_string_lossy())
}

/// Reads a regular file; a FIFO or a device would never end.
fn read_file(path: &Path, bytes_before: usize) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a regular file".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    if bytes_before + bytes.len() > TOTAL_BYTES_MAX {
        return Err(format!("the files have more than {TOTAL_BYTES_MAX} bytes together"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
}

/// Tells states apart; both are of this process, so the hash need not be stable.
fn fingerprint(documents: &[SourceDocument]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for document in documents {
        document.origin.hash(&mut hasher);
        match &document.content {
            Content::Object(value) => value.to_string().hash(&mut hasher),
            Content::Text { text, line } => (text, line).hash(&mut hasher),
            Content::Unreadable { message } => message.hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// How long nothing must happen before the files are read.
const QUIET: Duration = Duration::from_millis(60);
/// How often that wait is repeated while files keep changing: after this they are read.
const QUIET_ROUNDS_MAX: usize = 16;
/// How often the directory is looked at where the system gives no events.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is looked at where it does.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Manifests below one directory.
const FILES_MAX: usize = 10_000;
/// Documents in them.
const DOCUMENTS_MAX: usize = 50_000;
/// Folders inside each other.
const DEPTH_MAX: usize = 16;
/// Bytes of one file; etcd takes objects of at most 1.5 MiB.
const FILE_BYTES_MAX: u64 = 1536 * 1024;
/// Bytes of all files.
const TOTAL_BYTES_MAX: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn files(root: &Path) -> Vec<String> {
        read(root).unwrap().iter().map(|document| document.origin.to_string()).collect()
    }

    #[test]
    fn nested_folders_are_read_in_order_of_path_without_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        for file in ["b/c/z.yaml", "a.yml", "b/x.json", ".hidden.yaml", ".git/y.yaml", "n.txt"] {
            fs::write(root.join(file), "a: 1\n---\nb: 2\n").unwrap();
        }
        let want = ["a.yml", "b/c/z.yaml", "b/x.json"];
        let want: Vec<_> = want
            .iter()
            .flat_map(|f| [format!("{f} document 1"), format!("{f} document 2")])
            .collect();
        assert_eq!(files(root), want);
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("..2026/deep")).unwrap();
        fs::write(root.join("..2026/a.yaml"), "a: 1").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        symlink("..", root.join("folder/up")).unwrap();
        symlink("missing", root.join("dangling.yaml")).unwrap();
        assert_eq!(files(root), ["a.yaml document 1", "dangling.yaml"]);
    }

    #[test]
    fn files_that_cannot_be_taken_are_documents_that_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("binary.yaml"), [0xff, 0xfe, 0]).unwrap();
        fs::write(root.join("large.yaml"), vec![b'a'; 2 * 1024 * 1024]).unwrap();
        let documents = read(root).unwrap();
        let messages: Vec<_> = documents.iter().map(|d| format!("{d:?}")).collect();
        assert!(messages[0].contains("not UTF-8"), "{messages:?}");
        assert!(messages[1].contains("more than 1572864 bytes"), "{messages:?}");
        assert!(read(&root.join("absent")).is_err());
    }

    #[test]
    fn a_document_never_shows_its_text() {
        let documents = SourceDocument::split("a.yaml", "stringData: {p: hunter2}\n");
        assert!(!format!("{documents:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_file_that_an_editor_replaces_by_rename_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.yaml"), "a: 1").unwrap();
        let mut source = Directory::watch(root).unwrap();
        assert!(source.has_events());
        assert_eq!(source.next().await, SourceDocument::split("sub/a.yaml", "a: 1"));

        for round in 2..5 {
            let text = format!("a: {round}");
            fs::write(root.join("sub/.a.yaml.swp"), &text).unwrap();
            fs::rename(root.join("sub/.a.yaml.swp"), root.join("sub/a.yaml")).unwrap();
            assert_eq!(source.next().await, SourceDocument::split("sub/a.yaml", &text));
        }
    }

    #[tokio::test]
    async fn a_config_map_mount_that_swaps_its_link_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let version = |name: &str, text: &str| {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("a.yaml"), text).unwrap();
            symlink(name, root.join("..data_tmp")).unwrap();
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        };
        version("..1", "a: 1");
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        let mut source = Directory::watch(root).unwrap();
        assert_eq!(source.next().await, SourceDocument::split("a.yaml", "a: 1"));
        version("..2", "a: 2");
        assert_eq!(source.next().await, SourceDocument::split("a.yaml", "a: 2"));
    }

    #[tokio::test]
    async fn new_folders_and_removed_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mut source = Directory::watch(root).unwrap();
        assert!(source.next().await.is_empty());
        fs::create_dir_all(root.join("new/folder")).unwrap();
        fs::write(root.join("new/folder/a.yaml"), "a: 1").unwrap();
        assert_eq!(source.next().await.len(), 1);
        fs::remove_file(root.join("new/folder/a.yaml")).unwrap();
        assert!(source.next().await.is_empty());
    }
}
