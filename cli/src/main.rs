//! The `isthmus` binary: one cluster's roles, the demo, and the commands that look at them.
//!
//! # Flow
//!
//! 1. [`args`]: the command line.
//! 2. [`settings`]: the settings file of a cluster.
//! 3. [`up`]: runs roles.
//! 4. [`commands`]: status, explain, check, ca and the like.
//! 5. [`demo`]: three clusters on one machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

mod args;

mod commands;

mod demo;

mod settings;

mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("isthmus: {error:#}");
            ExitCode::FAILURE
        }
    }
}
