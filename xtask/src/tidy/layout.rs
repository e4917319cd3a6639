//! Where things lie, and what a file of a certain name must contain.

use std::collections::BTreeSet;

use crate::problem::Problem;
use crate::repository::Repository;
use crate::source::{self, Part};

const FUZZ_TARGETS: &str = "fuzz/fuzz_targets/";
const FUZZ_CORPUS: &str = "fuzz/corpus/";

/// A module is `foo.rs` + `foo/`, so that its name stands on the editor's tab.
pub(crate) fn no_mod_rs(repository: &Repository) -> Vec<Problem> {
    repository
        .paths()
        .filter(|path| *path == "mod.rs" || path.ends_with("/mod.rs"))
        .map(|path| Problem::new(path, 1, "modules are foo.rs + foo/, not foo/mod.rs"))
        .collect()
}

/// `lib.rs` is a map: it says in which order data passes the files, and has no logic.
pub(crate) fn map_in_lib_rs(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.rust().filter(|(path, _)| path.ends_with("src/lib.rs")) {
        if !text.lines().any(|line| line.trim_end() == "//! # Flow") {
            problems.push(Problem::new(path, 1, "lib.rs has no `//! # Flow` section"));
        }
        for line in source::lines(text).iter().filter(|line| line.part == Part::Code) {
            if source::mentions(line.text, "fn") || source::mentions(line.text, "impl") {
                let message = "lib.rs is a map: move the logic to a module";
                problems.push(Problem::new(path, line.number, message));
            }
            if line.text.contains("::*") {
                let message = "lib.rs re-exports by name, not by glob";
                problems.push(Problem::new(path, line.number, message));
            }
        }
    }
    problems
}

/// A fuzz target starts from inputs that reach its depths, is declared, and no corpus
/// outlives its target.
pub(crate) fn corpus_for_every_fuzz_target(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    let manifest = repository.text("fuzz/Cargo.toml").unwrap_or_default();
    let corpora: BTreeSet<&str> = repository
        .paths()
        .filter_map(|path| path.strip_prefix(FUZZ_CORPUS)?.split_once('/'))
        .map(|(target, _)| target)
        .collect();
    let mut targets = BTreeSet::new();
    for path in repository.paths().filter(|path| path.starts_with(FUZZ_TARGETS)) {
        let Some(target) = path[FUZZ_TARGETS.len()..].strip_suffix(".rs") else { continue };
        targets.insert(target);
        if !corpora.contains(target) {
            let message = format!("the fuzz target has no corpus in {FUZZ_CORPUS}{target}/");
            problems.push(Problem::new(path, 1, message));
        }
        if !manifest.contains(&format!("name = \"{target}\"")) {
            problems.push(Problem::new(path, 1, "the fuzz target is not in fuzz/Cargo.toml"));
        }
    }
    for stale in corpora.difference(&targets) {
        let message = format!("the corpus has no target {FUZZ_TARGETS}{stale}.rs");
        problems.push(Problem::new(&format!("{FUZZ_CORPUS}{stale}"), 1, message));
    }
    problems
}

/// Every crate of the workspace takes the workspace's lints.
pub(crate) fn inherited_lints(repository: &Repository) -> Vec<Problem> {
    repository
        .texts()
        .filter(|(path, _)| path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/"))
        .filter(|(_, text)| !text.contains("[lints]\nworkspace = true"))
        .map(|(path, _)| Problem::new(path, 1, "the crate lacks `[lints]` with `workspace = true`"))
        .collect()
}

/// A citation (`//= <document>#<section>`) names a section and is followed by the sentence that
/// the code implements (`//# ...`).
pub(crate) fn citations_quote(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.rust() {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(target) = line.strip_prefix("//= ") else { continue };
            if !target.contains('#') {
                let message = "a citation names its section: `//= <document>#<section>`";
                problems.push(Problem::new(path, index + 1, message));
            }
            if !lines.get(index + 1).is_some_and(|next| next.starts_with("//# ")) {
                let message = "a citation is followed by the quoted sentence, `//# ...`";
                problems.push(Problem::new(path, index + 1, message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mod_rs_is_refused() {
        let repository = Repository::of(&[("a/src/x/mod.rs", ""), ("a/src/xmod.rs", "")]);
        let problems = no_mod_rs(&repository);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "a/src/x/mod.rs");
    }

    #[test]
    fn lib_rs_without_a_flow_or_with_logic_is_found() {
        let good = "//! Purpose.\n//!\n//! # Flow\n//!\n//! 1. fn in a comment\nmod a;\n";
        let repository = Repository::of(&[
            ("a/src/lib.rs", good),
            ("b/src/lib.rs", "//! Purpose.\nmod a;\n"),
            ("c/src/lib.rs", &format!("{good}pub use a::*;\npub fn logic() {{}}\n")),
        ]);
        let found: Vec<(String, usize)> = map_in_lib_rs(&repository)
            .into_iter()
            .map(|problem| (problem.path, problem.line))
            .collect();
        let at = |path: &str, line| (path.to_owned(), line);
        assert_eq!(found, [at("b/src/lib.rs", 1), at("c/src/lib.rs", 7), at("c/src/lib.rs", 8)]);
    }

    #[test]
    fn fuzz_targets_and_corpora_belong_together() {
        let repository = Repository::of(&[
            ("fuzz/Cargo.toml", "name = \"good\"\nname = \"bare\"\n"),
            ("fuzz/fuzz_targets/good.rs", ""),
            ("fuzz/corpus/good/one", "x"),
            ("fuzz/fuzz_targets/bare.rs", ""),
            ("fuzz/corpus/stale/one", "x"),
        ]);
        let problems = corpus_for_every_fuzz_target(&repository);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].path, "fuzz/fuzz_targets/bare.rs");
        assert_eq!(problems[1].path, "fuzz/corpus/stale");
    }

    #[test]
    fn a_crate_with_its_own_lints_is_found() {
        let repository = Repository::of(&[
            ("Cargo.toml", ""),
            ("fuzz/Cargo.toml", ""),
            ("a/Cargo.toml", "[lints]\nworkspace = true\n"),
            ("b/Cargo.toml", "[lints.rust]\nunsafe_code = \"allow\"\n"),
        ]);
        let problems = inherited_lints(&repository);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "b/Cargo.toml");
    }

    #[test]
    fn a_citation_without_its_sentence_is_found() {
        let text =
            "    //= https://example.org/rfc#section-1\n    //# MUST.\n//= rfc 1\nfn a() {}\n";
        let problems = citations_quote(&Repository::of(&[("a/src/x.rs", text)]));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.line == 3));
    }
}
