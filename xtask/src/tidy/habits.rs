//! Habits that cost later: unfinished code, sleeping tests, dead spans, untyped errors.
//!
//! The needles are put together from pieces, so that this file does not find itself.

use crate::problem::Problem;
use crate::repository::Repository;
use crate::source::{self, Line, Part};

/// What stands for code or a test that is not there, and what to do instead.
const PLACEHOLDERS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it"),
    (concat!("unimple", "mented!("), "finish it"),
    (concat!("#[", "ignore"), "a test that cannot run must fail, or not exist"),
    (concat!("#[", "should_panic"), "assert on the outcome"),
];

const THREAD_SLEEP: &str = concat!("thread::", "sleep");

const ANYHOW: &str = concat!("any", "how");

/// The lines of a statement that are looked at for a span macro.
const STATEMENT_LINES_MAX: usize = 12;

pub(crate) fn no_placeholders(repository: &Repository) -> Vec<Problem> {
    find(repository, |_, line| {
        PLACEHOLDERS
            .iter()
            .find(|(needle, _)| source::mentions(line.text, needle))
            .map(|(needle, instead)| format!("`{needle}` is not allowed: {instead}"))
    })
}

/// A blocked worker is a bug in the product and a flake in a test.
pub(crate) fn no_thread_sleep(repository: &Repository) -> Vec<Problem> {
    find(repository, |_, line| {
        source::mentions(line.text, THREAD_SLEEP)
            .then(|| format!("`{THREAD_SLEEP}`: wait for the condition, with a deadline"))
    })
}

/// Library errors are enums that callers can match; only programs and tests may collect
/// them into one opaque type.
pub(crate) fn anyhow_stays_outside_libraries(repository: &Repository) -> Vec<Problem> {
    find(repository, |path, line| {
        let allowed = path.starts_with("cli/")
            || path.starts_with("xtask/")
            || path.ends_with("/main.rs")
            || line.part == Part::Test
            || repository.is_test(path);
        (!allowed && source::mentions(line.text, ANYHOW))
            .then(|| format!("`{ANYHOW}` belongs to main.rs, cli, xtask and tests: use an enum"))
    })
}

/// `let _span = info_span!(...)` makes a span that nothing ever enters.
pub(crate) fn no_named_dead_span(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.rust() {
        let lines = source::lines(text);
        for (index, line) in lines.iter().enumerate() {
            if line.text.trim_start().starts_with("let _") && binds_span(&lines[index..]) {
                let message = "a span bound to a `_name` is never entered: use #[instrument], \
                               .instrument() or in_scope";
                problems.push(Problem::new(path, line.number, message));
            }
        }
    }
    problems
}

fn binds_span(lines: &[Line<'_>]) -> bool {
    let mut statement = String::new();
    for line in lines.iter().take(STATEMENT_LINES_MAX) {
        statement.push_str(line.text.trim());
        if line.text.trim_end().ends_with(';') {
            break;
        }
    }
    let Some((_, value)) = statement.split_once('=') else { return false };
    value.contains("span!(") && !value.contains("in_scope(") && !value.contains(".instrument(")
}

/// Looks at every line of Rust that is not a comment.
fn find(repository: &Repository, rule: impl Fn(&str, &Line<'_>) -> Option<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.rust() {
        for line in source::lines(text).iter().filter(|line| !line.is_comment()) {
            if let Some(message) = rule(path, line) {
                problems.push(Problem::new(path, line.number, message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_in_code_and_tests() {
        for (needle, _) in PLACEHOLDERS {
            let code = format!("//! {needle}\n{needle}\n");
            let tests = format!("#[cfg(test)]\nmod tests {{\n    {needle}\n}}\n");
            assert_eq!(no_placeholders(&Repository::of(&[("a/src/x.rs", &code)])).len(), 1);
            assert_eq!(no_placeholders(&Repository::of(&[("a/src/x.rs", &tests)])).len(), 1);
        }
    }

    #[test]
    fn a_sleeping_thread_is_found() {
        let text =
            format!("    std::{THREAD_SLEEP}(PAUSE);\n    tokio::time::sleep(PAUSE).await;\n");
        let problems = no_thread_sleep(&Repository::of(&[("a/tests/it/main.rs", &text)]));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].line, 1);
    }

    #[test]
    fn opaque_errors_are_found_in_libraries_only() {
        let text = format!("use {ANYHOW}::Result;\n");
        let repository = Repository::of(&[
            ("cli/src/up.rs", &text),
            ("gateway/src/ingress.rs", &text),
            ("gateway/tests/it/main.rs", &text),
            ("tool/src/main.rs", &text),
            ("xtask/src/x.rs", &text),
        ]);
        let problems = anyhow_stays_outside_libraries(&repository);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "gateway/src/ingress.rs");
    }

    #[test]
    fn a_span_bound_to_an_underscore_is_found() {
        let dead = "    let _span = tracing::info_span!(\n        \"x\",\n    );\n";
        let alive =
            "    let span = info_span!(\"x\");\n    let _seen = debug_span!(\"y\").in_scope(f);\n";
        let far = "    let _x = 1;\n    let span = info_span!(\"x\");\n";
        let found = |text| no_named_dead_span(&Repository::of(&[("a/src/x.rs", text)])).len();
        assert_eq!((found(dead), found(alive), found(far)), (1, 0, 0));
    }
}
