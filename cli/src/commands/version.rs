//! `isthmus version`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

/// Arguments of `isthmus version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Text,
}

/// Prints the version, and the versions of what peers must speak.
pub(crate) fn run(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let link = String::from_utf8_lossy(isthmus_link::ALPN);
    match args.output {
        Output::Text => println!("isthmus {version} (link protocol {link})"),
        Output::Json => println!("{}", json!({ "version": version, "link": link })),
    }
    Ok(ExitCode::SUCCESS)
}
