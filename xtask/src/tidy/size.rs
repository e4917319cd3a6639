//! How long a file may be.
//!
//! A file that people must keep in their head at once should fit there. Tests do not
//! count: a long test module is no reason to divide the code beside it. The exceptions
//! stand in `xtask/allow-list.txt`, each with its reason, and an exception that is no
//! longer needed is itself a problem, so the list can only shrink by itself.

use std::collections::BTreeMap;

use crate::problem::Problem;
use crate::repository::Repository;
use crate::source::{self, Part};

/// The longest file, in lines that are not tests.
const LINES_MAX: usize = 400;

const ALLOW_LIST: &str = "xtask/allow-list.txt";

pub(crate) fn check(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut allowed = allow_list(repository, &mut problems);
    for (path, text) in repository.rust() {
        if repository.is_test(path) {
            continue;
        }
        let length = source::lines(text).iter().filter(|line| line.part != Part::Test).count();
        if length > LINES_MAX && allowed.remove(path).is_none() {
            problems.push(Problem::new(
                path,
                1,
                format!(
                    "{length} lines without tests, the limit is {LINES_MAX}: divide the file by \
                     interface, or give the reason in {ALLOW_LIST}"
                ),
            ));
        }
    }
    for (path, line) in allowed {
        let message = format!("{path} is within the limit of {LINES_MAX} lines or gone: remove");
        problems.push(Problem::new(ALLOW_LIST, line, message));
    }
    problems
}

/// The excepted paths, each with its line in the list.
fn allow_list<'a>(
    repository: &'a Repository,
    problems: &mut Vec<Problem>,
) -> BTreeMap<&'a str, usize> {
    let mut allowed = BTreeMap::new();
    let text = repository.text(ALLOW_LIST).unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (path, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if reason.trim().is_empty() {
            problems.push(Problem::new(ALLOW_LIST, index + 1, format!("{path} needs a reason")));
        }
        allowed.insert(path, index + 1);
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(tests: usize) -> String {
        let mut text = "fn line() {}\n".repeat(LINES_MAX);
        text.push_str("#[cfg(test)]\nmod tests {\n");
        text.push_str(&"    fn line() {}\n".repeat(tests));
        text.push_str("}\n");
        text
    }

    #[test]
    fn tests_do_not_count() {
        let tests_only = "fn line() {}\n".repeat(2 * LINES_MAX);
        let repository = Repository::of(&[
            ("a/src/lib.rs", &long(300)),
            ("a/src/x/tests.rs", &tests_only),
            ("a/tests/it/main.rs", &tests_only),
        ]);
        assert_eq!(check(&repository), []);
    }

    #[test]
    fn one_line_too_many_is_found() {
        let repository = Repository::of(&[("a/src/x.rs", &format!("//! x\n{}", long(0)))]);
        let problems = check(&repository);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "a/src/x.rs");
        assert!(problems[0].message.contains("401 lines"), "{}", problems[0]);
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_use() {
        let text = format!("//! x\n{}", long(0));
        let list = "# comment\n\na/src/x.rs one table\na/src/y.rs\n";
        let repository =
            Repository::of(&[("a/src/x.rs", &text), ("a/src/y.rs", ""), (ALLOW_LIST, list)]);
        let problems = check(&repository);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.line == 4));
    }
}
