//! Regular expressions of users, which must not cost more than they may.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{InvalidName, excerpt};

/// A regular expression that matches whole values, in linear time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: Arc<str>,
    regex: Arc<regex::Regex>,
}

impl Pattern {
    /// Compiles the expression, anchored at both ends.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] above 1 KiB of text, above 256 KiB compiled, or when the syntax is
    /// wrong.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let kind = "regular expression";
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidName::Length { kind, length: text.len(), limit: PATTERN_BYTES_MAX });
        }
        let form = || InvalidName::Form {
            kind,
            value: excerpt(text),
            form: "a linear-time expression (RE2 syntax) of at most 256 KiB when compiled",
        };
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .dfa_size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build()
            .map_err(|_| form())?;
        Ok(Self { text: Arc::from(text), regex: Arc::new(regex) })
    }

    /// Whether the whole value matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The expression as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, InvalidName> {
        Self::new(&value)
    }
}

impl From<Pattern> for String {
    fn from(value: Pattern) -> Self {
        value.text.as_ref().to_owned()
    }
}

const PATTERN_BYTES_MAX: usize = 1024;
const PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_values_and_are_bounded() {
        let pattern = Pattern::new("/v[0-9]+|/x").unwrap();
        assert!(pattern.is_match("/v12") && pattern.is_match("/x"));
        assert!(!pattern.is_match("/v12/y") && !pattern.is_match("a/x"));
        assert!(Pattern::new("(a+)+$").is_ok());
        for bad in [r"\w{1000}{1000}", "(", &"a".repeat(1025)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
