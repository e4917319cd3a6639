//! One Rust file, split into code, comments and tests.
//!
//! The rules look at lines and not at a syntax tree: they must be fast, and rustfmt gives
//! every file the one shape that lines can be read from. Block comments and needles in
//! string literals are taken for code, which errs on the strict side.

/// What a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compiled into the product.
    Code,
    /// A comment or a doc comment outside the tests.
    Comment,
    /// Inside a `#[cfg(test)] mod tests { ... }` block, comments included.
    Test,
}

/// One line of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) text: &'a str,
    pub(crate) part: Part,
}

impl Line<'_> {
    /// Whether the line is a comment, in the tests or outside.
    pub(crate) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with("//")
    }
}

/// The lines of `text` with the part that each belongs to.
pub(crate) fn lines(text: &str) -> Vec<Line<'_>> {
    let raw: Vec<&str> = text.lines().collect();
    let mut lines = Vec::with_capacity(raw.len());
    let mut in_tests = false;
    for (index, &text) in raw.iter().enumerate() {
        in_tests = in_tests || opens_tests(&raw[index..]);
        let part = if in_tests {
            Part::Test
        } else if text.trim_start().starts_with("//") {
            Part::Comment
        } else {
            Part::Code
        };
        lines.push(Line { number: index + 1, text, part });
        in_tests = in_tests && text != "}";
    }
    lines
}

/// The modules that the file declares for tests only (`#[cfg(test)] mod name;`), as paths
/// without `.rs`.
pub(crate) fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let base = match name {
        "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", name.trim_end_matches(".rs")),
    };
    let raw: Vec<&str> = text.lines().collect();
    (0..raw.len())
        .filter_map(|index| after_cfg_test(&raw[index..])?.strip_suffix(';'))
        .filter_map(|declaration| declaration.split_once("mod "))
        .map(|(_, module)| format!("{base}/{module}"))
        .collect()
}

/// Whether `needle` occurs in `line` as a whole word: an end of the needle that is a letter,
/// a digit or an underscore does not touch another one in the line.
pub(crate) fn mentions(line: &str, needle: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(start, found)| {
        let before = line[..start].chars().next_back().is_some_and(is_word);
        let after = line[start + found.len()..].chars().next().is_some_and(is_word);
        let left = found.starts_with(is_word) && before;
        let right = found.ends_with(is_word) && after;
        !left && !right
    })
}

fn opens_tests(raw: &[&str]) -> bool {
    after_cfg_test(raw) == Some("mod tests {")
}

/// The item under a `#[cfg(test)]` on the first line; further attributes are passed over.
fn after_cfg_test<'a>(raw: &[&'a str]) -> Option<&'a str> {
    let (first, rest) = raw.split_first()?;
    if *first != "#[cfg(test)]" {
        return None;
    }
    rest.iter().find(|line| !line.starts_with("#[")).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_block_ends_at_its_own_brace() {
        let text = "\
fn real() {}
// why
#[cfg(test)]
#[expect(unused)]
mod tests {
    fn inner() {
    }
}
fn after() {}
";
        let parts: Vec<Part> = lines(text).iter().map(|line| line.part).collect();
        let mut expected = vec![Part::Code, Part::Comment];
        expected.extend([Part::Test; 6]);
        expected.push(Part::Code);
        assert_eq!(parts, expected);
    }

    #[test]
    fn another_item_for_tests_is_still_code() {
        let text = "#[cfg(test)]\nfn probe() {\n}\n";
        assert!(lines(text).iter().all(|line| line.part == Part::Code));
    }

    #[test]
    fn needles_match_whole_words_only() {
        assert!(mentions("use tokio::net;", "tokio"));
        assert!(mentions("std::time::Instant::now()", "Instant::now"));
        assert!(!mentions("use tokio_util::sync;", "tokio"));
        assert!(!mentions("MyInstant::now()", "Instant::now"));
        assert!(mentions("#[derive(Debug)]", "#[derive"));
    }
}
