//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{ca, check, explain, status, version};
use crate::settings::{Settings, sample};
use crate::up::Selection;
use crate::{demo, up};

/// Multi-cluster edge gateway and east-west mesh federation.
#[derive(Debug, Parser)]
#[command(name = "isthmus", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  isthmus demo                                  three linked clusters on this machine
  isthmus up --print-settings > cluster.yaml    a commented settings file
  isthmus up -f cluster.yaml --check            validate settings and manifests
  isthmus up -f cluster.yaml                    run one cluster
  isthmus status -f cluster.yaml -o wide        what it is doing
  isthmus explain http://cart.shop.svc.clusterset.local/ --from shop/frontend -f cluster.yaml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs three linked clusters on loopback, with traffic and failures
    Demo(demo::DemoArgs),
    /// Runs all roles of one cluster in one process
    Up(UpArgs),
    /// Runs the gateway (ingress and east-west) as a process of its own
    Gateway(FileArgs),
    /// Runs the sidecar of one workload as a process of its own
    Sidecar(SidecarArgs),
    /// Runs the controller as a process of its own
    Controller(FileArgs),
    /// Runs the DNS server as a process of its own
    Dns(FileArgs),
    /// Runs the certificate authority, or looks at it
    #[command(args_conflicts_with_subcommands = true)]
    Ca(CaArgs),
    /// Shows what a running cluster is doing
    #[command(after_help = "Examples:\n  isthmus status -f cluster.yaml\n  isthmus status -f cluster.yaml -o json | jq .peers")]
    Status(status::StatusArgs),
    /// Says where a request would go and why, by running the code that routes it
    #[command(after_help = "Examples:\n  isthmus explain http://cart.shop.svc.clusterset.local/ --from shop/frontend\n  isthmus explain http://shop.example/api --method POST --header 'x-user: a'")]
    Explain(explain::ExplainArgs),
    /// Prints the version
    Version(version::VersionArgs),
    /// Prints a completion script
    #[command(after_help = "Example:\n  isthmus completions bash > /etc/bash_completion.d/isthmus")]
    Completions {
        /// The shell
        shell: Shell,
    },
    #[command(hide = true)]
    DemoApp(demo::app::AppArgs),
    #[command(hide = true)]
    DemoWan(demo::wan::WanArgs),
}

/// The settings file of the cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// Settings file of the cluster
    #[arg(short = 'f', long = "file", value_name = "FILE", default_value = "cluster.yaml")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Print a commented settings file and end
    #[arg(long)]
    print_settings: bool,
    /// Validate settings and manifests, start nothing; fails on an error
    #[arg(long, conflicts_with = "print_settings")]
    check: bool,
}

#[derive(Debug, Args)]
struct SidecarArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Name of the workload in the settings
    #[arg(long, value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct CaArgs {
    #[command(subcommand)]
    command: Option<CaCommand>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Prints the trust bundle (SPIFFE JWKS), for a ClusterLink of a peer; makes the
    /// authority when there is none yet
    Bundle(FileArgs),
    /// Begins a rotation of the root of a running cluster
    Rotate(FileArgs),
}

/// Reads the command line and runs the command.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Demo(args) => demo::run(&args),
        Command::DemoApp(args) => demo::app::run(&args),
        Command::DemoWan(args) => demo::wan::run(&args),
        Command::Up(args) => run_up(&args),
        Command::Gateway(args) => roles(&args, Selection::Gateway),
        Command::Controller(args) => roles(&args, Selection::Controller),
        Command::Dns(args) => roles(&args, Selection::Dns),
        Command::Sidecar(args) => sidecar(&args),
        Command::Ca(args) => match &args.command {
            None => roles(&args.file, Selection::Ca),
            Some(CaCommand::Bundle(file)) => ca::bundle(&load(file)?),
            Some(CaCommand::Rotate(file)) => ca::rotate(&load(file)?),
        },
        Command::Status(args) => status::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions { shell } => {
            let mut command = <Arguments as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "isthmus", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the settings file.
pub(crate) fn load(args: &FileArgs) -> anyhow::Result<Settings> {
    Ok(Settings::load(&args.file)?)
}

fn run_up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    if args.print_settings {
        print!("{}", sample::sample()?);
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return check::run(&load(&args.file)?);
    }
    roles(&args.file, Selection::All)
}

fn sidecar(args: &SidecarArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.file)?;
    let names: Vec<&str> = settings.sidecars.iter().map(|s| s.name.as_str()).collect();
    if !names.contains(&args.name.as_str()) {
        let known = names.join(", ");
        anyhow::bail!("no sidecar is named {}; the settings have: {known}", args.name);
    }
    up::run(settings, Selection::Sidecar(args.name.clone())).context("the sidecar ended")?;
    Ok(ExitCode::SUCCESS)
}

fn roles(args: &FileArgs, selection: Selection) -> anyhow::Result<ExitCode> {
    up::run(load(args)?, selection)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
