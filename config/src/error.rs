//! What is wrong with the user's objects, said so that the user finds the place.
//!
//! A [`Reason`] is what a rule says of one value, a `FieldError` adds where in the
//! object, and a [`ConfigError`] adds which object in which document of which file.

use std::fmt;
use std::sync::Arc;

use isthmus_model::InvalidName;

use crate::kind::ObjectRef;

/// One problem with one object, or with a document that gives no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the document comes from.
    pub origin: Origin,
    /// The object, where the document says enough to know it.
    pub object: Option<ObjectRef>,
    /// The field, for example `spec.rules[0].matches[1].path.value`.
    pub field: Option<String>,
    /// What is wrong.
    pub reason: Reason,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {}", Printable(field))?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// A document of a source: a file and the number of the document in it.
///
/// A source that has no files (a Kubernetes watch) names itself in `file`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The path, relative to the directory that is read; empty for the directory itself.
    pub file: Arc<str>,
    /// The number of the document in the file, from 1; 0 is the file as a whole.
    pub document: u32,
}

impl Origin {
    /// Names a document.
    pub fn new(file: &str, document: u32) -> Self {
        Self { file: Arc::from(file), document }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.file.is_empty() { "the manifests" } else { &*self.file };
        write!(f, "{}", Printable(whole))?;
        if self.document > 0 {
            write!(f, " document {}", self.document)?;
        }
        Ok(())
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The value appears a second time where each may appear once.
    #[error("{value:?} appears twice")]
    Duplicate {
        /// The value, cut to 80 characters.
        value: String,
    },
    /// Another document has an object of the same kind, namespace and name.
    #[error("the same object is in {first}, which is used")]
    DuplicateObject {
        /// The document whose object is used.
        first: Origin,
    },
    /// The file cannot be read.
    #[error("the file cannot be read: {message}")]
    File {
        /// What the system or the limits say.
        message: String,
    },
    /// A required field is absent.
    #[error("is required")]
    Missing,
    /// The value breaks the rule of names.
    #[error("{0}")]
    Name(InvalidName),
    /// The object names another that does not exist.
    #[error("{target} does not exist")]
    Reference {
        /// What is named.
        target: String,
    },
    /// Two fields contradict each other, or a rule of the kind is broken.
    #[error("{rule}")]
    Rule {
        /// The rule.
        rule: &'static str,
    },
    /// A field is unknown, or a value has the wrong type.
    #[error("{message}")]
    Shape {
        /// What serde says.
        message: String,
    },
    /// A list has too many entries.
    #[error("has {count} entries, at most {limit} are allowed")]
    TooMany {
        /// Entries in the list.
        count: usize,
        /// Entries allowed.
        limit: usize,
    },
    /// The value is not one of those that the field takes.
    #[error("{value:?} is not {form}")]
    Value {
        /// The value, cut to 80 characters.
        value: String,
        /// What the field takes.
        form: &'static str,
    },
    /// The kind is known and this version of it is not.
    #[error("{given:?} is not a version of the kind that is known here: {known}")]
    Version {
        /// The object's `apiVersion`.
        given: String,
        /// The versions that are known.
        known: String,
    },
    /// The document is not YAML, or breaks the limits on YAML.
    #[error("line {line}: {message}")]
    Yaml {
        /// The line in the file.
        line: u64,
        /// What the parser says.
        message: String,
    },
}

impl Reason {
    pub(crate) fn value(value: impl fmt::Display, form: &'static str) -> Self {
        Self::Value { value: excerpt(&value.to_string()), form }
    }

    pub(crate) fn duplicate(value: impl fmt::Display) -> Self {
        Self::Duplicate { value: excerpt(&value.to_string()) }
    }
}

impl From<InvalidName> for Reason {
    fn from(error: InvalidName) -> Self {
        Self::Name(error)
    }
}

/// A reason with the field, relative to the value that was being checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) reason: Reason,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<Reason>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn rule(field: impl Into<String>, rule: &'static str) -> Self {
        Self::new(field, Reason::Rule { rule })
    }

    fn within(mut self, outer: &str) -> Self {
        if self.field.is_empty() {
            self.field = outer.to_owned();
        } else {
            let dot = if self.field.starts_with('[') { "" } else { "." };
            self.field = format!("{outer}{dot}{}", self.field);
        }
        self
    }
}

/// Adds where a value is to what is wrong with it.
pub(crate) trait At<T> {
    /// Names the field of the value that was checked.
    fn at(self, field: &str) -> Result<T, FieldError>;

    /// The same for an entry of a list.
    fn at_index(self, field: &str, index: usize) -> Result<T, FieldError>;
}

impl<T> At<T> for Result<T, FieldError> {
    fn at(self, field: &str) -> Self {
        self.map_err(|error| error.within(field))
    }

    fn at_index(self, field: &str, index: usize) -> Self {
        self.map_err(|error| error.within(&format!("{field}[{index}]")))
    }
}

impl<T> At<T> for Result<T, InvalidName> {
    fn at(self, field: &str) -> Result<T, FieldError> {
        self.map_err(|error| FieldError::new(field, error))
    }

    fn at_index(self, field: &str, index: usize) -> Result<T, FieldError> {
        self.map_err(|error| FieldError::new(format!("{field}[{index}]"), error))
    }
}

impl<T> At<T> for Result<T, Reason> {
    fn at(self, field: &str) -> Result<T, FieldError> {
        self.map_err(|reason| FieldError::new(field, reason))
    }

    fn at_index(self, field: &str, index: usize) -> Result<T, FieldError> {
        self.map_err(|reason| FieldError::new(format!("{field}[{index}]"), reason))
    }
}

/// Cuts the user's text so that a message stays readable.
pub(crate) fn excerpt(value: &str) -> String {
    value.chars().take(EXCERPT_CHARS_MAX).collect()
}

/// Text without control characters, so that a name cannot forge lines of a log.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        self.0.chars().take(PRINTABLE_CHARS_MAX).try_for_each(|c| {
            if c.is_control() { f.write_char('\u{fffd}') } else { f.write_char(c) }
        })
    }
}

/// The same as a new text, for messages of other crates.
pub(crate) fn printable(text: &str) -> String {
    Printable(text).to_string()
}

const EXCERPT_CHARS_MAX: usize = 80;
const PRINTABLE_CHARS_MAX: usize = 400;
