//! The rules about files and lines.
//!
//! A rule is a function from the repository to problems; this file is the list of them.
//! What clippy can check (function length, argument count, forbidden methods and types)
//! stands in `clippy.toml` and the workspace lints, not here.

mod habits;
mod layout;
mod privacy;
mod purity;
mod size;

use crate::problem::Problem;
use crate::repository::Repository;

/// Every problem of every rule, unsorted.
pub(crate) fn check(repository: &Repository) -> Vec<Problem> {
    let rules: [fn(&Repository) -> Vec<Problem>; 12] = [
        size::check,
        layout::no_mod_rs,
        layout::map_in_lib_rs,
        layout::corpus_for_every_fuzz_target,
        layout::inherited_lints,
        layout::citations_quote,
        purity::check,
        habits::no_placeholders,
        habits::no_thread_sleep,
        habits::no_named_dead_span,
        habits::anyhow_stays_outside_libraries,
        privacy::check,
    ];
    rules.iter().flat_map(|rule| rule(repository)).collect()
}
