//! What an operator asks of a cluster that runs, or of files at rest.
//!
//! # Flow
//!
//! 1. [`run`]: a parsed command line to the code that answers it.
//! 2. `admin`: asks the admin endpoint of a running cluster.
//! 3. One file for each command.
//! 4. [`output`] and `table`: JSON, YAML and tables to standard output.

mod admin;

mod ca;

mod check;

mod completions;

mod crds;

mod explain;

pub(crate) mod install;

pub(crate) mod link;

pub(crate) mod output;

mod reach;

mod status;

mod table;

mod version;

use std::path::Path;
use std::process::ExitCode;

use crate::args::{CaArgs, Command, SidecarArgs, UpArgs};
use crate::settings::{Settings, sample};
use crate::up::{self, Selection};
use crate::{args, demo};

/// Does what the command line says.
///
/// # Errors
///
/// Whatever keeps the command from its purpose, ready to print.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::DemoApp(args) => demo::app::run(&args),
        Command::DemoWan(args) => demo::wan::run(&args),
        Command::Up(args) => run_up(&args),
        Command::Gateway(args) => start(&args.file, Selection::Gateway),
        Command::Sidecar(args) => run_sidecar(&args),
        Command::Controller(args) => start(&args.file, Selection::Controller),
        Command::Dns(args) => start(&args.file, Selection::Dns),
        Command::Ca(args) => run_ca(&args),
        Command::Link(command) => link::run(&command),
        Command::Check(args) if args.is_kubernetes() => {
            check::cluster::run(&args.access, args.query.output.output)
        }
        Command::Check(args) => check::run(&args.query.file.file, args.query.output.output),
        Command::Status(args) if args.is_kubernetes() => {
            status::cluster::run(&args.access, args.query.output.output)
        }
        Command::Status(args) => status::run(&args.query),
        Command::Explain(args) => explain::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => install::uninstall::run(&args),
        Command::Crds { write } => crds::run(write.as_deref()),
        Command::Version(args) => version::run(args.output),
        Command::Completions { shell } => completions::run(shell),
    }
}

fn run_up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    if args.print_settings {
        output::print(&sample::sample()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return check::run(&args.file.file, args.output);
    }
    start(&args.file.file, Selection::All)
}

fn run_sidecar(args: &SidecarArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&args.file.file)?;
    let name = settings.sidecar(&args.name)?.name.to_string();
    up::run(settings, Selection::Sidecar(name))?;
    Ok(ExitCode::SUCCESS)
}

fn run_ca(args: &CaArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => start(&args.file, Selection::Ca),
        Some(args::CaCommand::Init) => ca::init(&args.file),
        Some(args::CaCommand::Rotate) => ca::rotate(&args.file),
        Some(args::CaCommand::Bundle) => ca::bundle(&args.file),
    }
}

fn start(file: &Path, selection: Selection) -> anyhow::Result<ExitCode> {
    up::run(Settings::load(file)?, selection)?;
    Ok(ExitCode::SUCCESS)
}
