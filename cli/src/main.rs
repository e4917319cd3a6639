//! The `isthmus` binary: every role of a cluster, and the commands of its operator.
//!
//! # Flow
//!
//! 1. [`args`]: the command line.
//! 2. [`settings`]: what `cluster.yaml` says.
//! 3. [`up`]: the roles of one cluster.
//! 4. [`commands`]: what is asked of a cluster that runs, or of files at rest.
//! 5. [`demo`]: three clusters on one machine.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "standard output and standard error are the interface of a command line"
)]

mod args;

mod commands;

mod demo;

mod settings;

mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    // A usage error ends the process here with 2, help and the version with 0.
    let cli = Cli::parse();
    commands::run(cli.command).unwrap_or_else(|error| {
        commands::output::report(&error);
        ExitCode::FAILURE
    })
}
