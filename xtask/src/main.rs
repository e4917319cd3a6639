//! Repository checks that CI runs.
//!
//! `cargo run -p xtask -- tidy` checks everything below, `cargo run -p xtask -- deps`
//! only the layers. Each problem is one line, `path:line: message`, and any problem makes
//! the exit code 1.
//!
//! # Flow
//!
//! 1. [`repository`]: reads every file that git tracks, or would track, into memory.
//! 2. [`source`]: splits a Rust file into code, comments and tests.
//! 3. [`tidy`]: the rules about files and lines; each is a function from the repository
//!    to problems.
//! 4. [`deps`]: the rules about dependencies, over the output of `cargo metadata`.
//! 5. [`problem`]: what a rule returns, and how it is printed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

mod deps;
mod problem;
mod repository;
mod source;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::problem::Problem;
use crate::repository::Repository;

const USAGE: &str = "\
usage: cargo run -p xtask -- <task>

  tidy   every check: files, lines, layers
  deps   only the layers: which crate may depend on which";

fn main() -> anyhow::Result<ExitCode> {
    let task = std::env::args().nth(1).unwrap_or_default();
    let all = match task.as_str() {
        "tidy" => true,
        "deps" => false,
        _ => {
            eprintln!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the manifest of xtask lies in a folder of the repository")?;
    let repository = Repository::load(root)?;
    let mut problems = deps::check(&deps::metadata(root)?, &repository)?;
    if all {
        problems.extend(tidy::check(&repository));
    }
    Ok(report(&task, repository.len(), problems))
}

fn report(task: &str, files: usize, mut problems: Vec<Problem>) -> ExitCode {
    problems.sort();
    problems.dedup();
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        eprintln!("{task}: {files} files, no problem");
        ExitCode::SUCCESS
    } else {
        eprintln!("{task}: {files} files, {} problem(s)", problems.len());
        ExitCode::FAILURE
    }
}
