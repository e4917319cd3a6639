//! Sources: where documents come from.
//!
//! A source gives whole states, each a list of [`SourceDocument`]s; the index finds out
//! what has changed. A directory gives text; a Kubernetes watch gives objects
//! ([`Content::Object`]); everything after that is the same.

pub mod directory;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::error::Origin;
use crate::raw::document;

/// One document of a source.
#[derive(Clone, PartialEq)]
pub struct SourceDocument {
    /// Where it comes from.
    pub origin: Origin,
    /// What it holds.
    pub content: Content,
}

/// What a document holds.
#[derive(Clone, PartialEq)]
pub enum Content {
    /// An object, or a `List` of objects, as JSON, from an API server that has checked it
    /// by its own schema: fields that are not known here are passed over. It is shared with
    /// everybody who reads it, and the same pointer is the same object.
    Object(Arc<Value>),
    /// YAML or JSON text.
    Text {
        /// The text of this document alone.
        text: String,
        /// The line of the file where it begins, from 1.
        line: u64,
    },
    /// Nothing: the file cannot be read. What it held before stays.
    Unreadable {
        /// Why.
        message: String,
    },
}

impl SourceDocument {
    /// Splits the text of a file into its documents.
    pub fn split(file: &str, text: &str) -> Vec<Self> {
        let parts = document::split(text).into_iter().map(|part| Self {
            origin: Origin::new(file, part.number),
            content: Content::Text { text: part.text.to_owned(), line: part.line },
        });
        parts.collect()
    }

    /// An object that is already JSON.
    pub fn object(origin: Origin, value: impl Into<Arc<Value>>) -> Self {
        Self { origin, content: Content::Object(value.into()) }
    }

    /// A file or folder that cannot be read; the empty name is the whole source.
    pub fn unreadable(file: &str, message: impl Into<String>) -> Self {
        let content = Content::Unreadable { message: message.into() };
        Self { origin: Origin::new(file, 0), content }
    }
}

/// Documents may hold secrets, so only their place and size are shown.
impl fmt::Debug for SourceDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceDocument({}, {:?})", self.origin, self.content)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(_) => f.write_str("object"),
            Self::Text { text, .. } => write!(f, "{} bytes", text.len()),
            Self::Unreadable { message } => write!(f, "unreadable: {message}"),
        }
    }
}
