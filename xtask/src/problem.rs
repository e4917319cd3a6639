//! What a rule returns.

use std::fmt;

/// One broken rule at one place. Sorts by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// The file, relative to the root of the repository.
    pub(crate) path: String,
    /// Counted from 1. Problems of a whole file are at line 1, so that editors can jump.
    pub(crate) line: usize,
    /// What is wrong and what to do instead.
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
