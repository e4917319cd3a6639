//! `isthmus completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::output;
use crate::args::Cli;

/// Prints the completions of a shell.
pub(crate) fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    output::print(&text(shell))?;
    Ok(ExitCode::SUCCESS)
}

fn text(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isthmus", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_the_commands() {
        for shell in Shell::value_variants() {
            assert!(text(*shell).contains("explain"), "{shell}");
        }
    }
}
