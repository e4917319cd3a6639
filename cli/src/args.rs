//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, Method};

use crate::commands::install::args::{AccessArgs, InstallArgs, UninstallArgs};
use crate::commands::link::args::LinkCommand;
use crate::demo::DemoArgs;
use crate::demo::app::AppArgs;
use crate::demo::wan::WanArgs;

/// Multi-cluster gateway and mesh federation
///
/// Joins clusters in different clouds into one network of services: gateways let the
/// world in, links over QUIC or TCP carry traffic between clusters, sidecars give each
/// workload an identity and mutual TLS, and DNS names it all.
#[derive(Debug, Parser)]
#[command(name = "isthmus", version, after_long_help = EXAMPLES, after_help = EXIT_CODES)]
#[command(propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run three linked clusters on this machine, with traffic and a guided failure
    #[command(after_long_help = "Examples:
  isthmus demo                  a live view; needs a terminal
  isthmus demo --once           the same steps as text, for a pipeline; fails if one does")]
    Demo(DemoArgs),
    /// Run every role of one cluster in one process
    #[command(after_long_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Run the ingress and east-west gateways of a cluster
    Gateway(FileArgs),
    /// Run the sidecar of one workload
    #[command(after_long_help = "Examples:
  isthmus sidecar --name frontend -f cluster.yaml
  isthmus sidecar --name shop/frontend -f cluster.yaml")]
    Sidecar(SidecarArgs),
    /// Run the controller of a cluster
    Controller(FileArgs),
    /// Run the DNS server of a cluster
    Dns(FileArgs),
    /// Run the certificate authority of a cluster, or ask it for something
    #[command(after_long_help = CA_EXAMPLES)]
    Ca(CaArgs),
    /// Link clusters, show their links, and take them apart
    #[command(subcommand)]
    Link(LinkCommand),
    /// Say what is wrong with a cluster: one line for each finding, and what to do
    #[command(after_long_help = "Examples:
  isthmus check -f cluster.yaml                settings and manifests of a folder
  isthmus check --context east                 a cluster of the kubeconfig
  isthmus check -k                             that of the current context")]
    Check(StatusArgs),
    /// Show the state of a running cluster: links, services, certificates, problems
    #[command(after_long_help = "Examples:
  isthmus status -f cluster.yaml
  isthmus status --context east
  isthmus status -f cluster.yaml -o wide
  isthmus status -f cluster.yaml -o json | jq '.peers[].state'")]
    Status(StatusArgs),
    /// Show why a request goes where it goes, by running the code that routes it
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Put Isthmus into a Kubernetes cluster, or bring what is there up to date
    #[command(after_long_help = INSTALL_EXAMPLES)]
    Install(InstallArgs),
    /// Remove Isthmus from a Kubernetes cluster, with all that it made there
    #[command(after_long_help = UNINSTALL_EXAMPLES)]
    Uninstall(UninstallArgs),
    /// Show the version
    Version(OutputArgs),
    /// Print completions for a shell
    #[command(after_long_help = "Examples:
  isthmus completions bash > /etc/bash_completion.d/isthmus
  isthmus completions zsh > \"${fpath[1]}/_isthmus\"
  isthmus completions fish > ~/.config/fish/completions/isthmus.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the CustomResourceDefinitions of isthmus.io
    #[command(hide = true)]
    Crds {
        /// Write every generated file below this folder, which is deploy, instead
        #[arg(long, value_name = "FOLDER")]
        write: Option<PathBuf>,
    },
    /// Run a sample application of the demo
    #[command(hide = true)]
    DemoApp(AppArgs),
    /// Run the wide area network of the demo
    #[command(hide = true)]
    DemoWan(WanArgs),
}

/// Names the settings file.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The settings file of the cluster
    #[arg(short, long, value_name = "FILE", default_value = SETTINGS_FILE)]
    pub(crate) file: PathBuf,
}

/// Arguments of `isthmus up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Validate settings and manifests, print what is found, and start nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a commented sample of a settings file
    #[arg(long, conflicts_with = "check")]
    pub(crate) print_settings: bool,
    /// The form of what --check finds
    #[arg(short, long, value_enum, requires = "check", default_value_t)]
    pub(crate) output: Output,
}

/// Arguments of `isthmus sidecar`.
#[derive(Debug, Args)]
pub(crate) struct SidecarArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// The workload, as <name> or <namespace>/<name> of the settings' sidecars
    #[arg(long)]
    pub(crate) name: String,
}

/// Arguments of `isthmus ca`.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// The settings file of the cluster
    #[arg(short, long, value_name = "FILE", default_value = SETTINGS_FILE, global = true)]
    pub(crate) file: PathBuf,
    /// What to ask for; without it, the authority runs.
    #[command(subcommand)]
    pub(crate) command: Option<CaCommand>,
}

/// What to ask the authority for.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CaCommand {
    /// Create the authority's keys if there are none, and print its trust bundle
    Init,
    /// Begin the rotation of the root of a running cluster
    Rotate,
    /// Print the trust bundle (SPIFFE JWKS) that other clusters put into their ClusterLink
    Bundle,
}

/// Arguments of commands that ask a running cluster.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of commands that ask a cluster by its settings file or by a kubeconfig.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Ask the API server of the current context, as --context does for another
    #[arg(short, long)]
    pub(crate) kubernetes: bool,
}

impl StatusArgs {
    /// Whether the API server of a kubeconfig is asked.
    pub(crate) fn is_kubernetes(&self) -> bool {
        self.kubernetes || self.access.context.is_some() || self.access.kubeconfig.is_some()
    }
}

/// Arguments of `isthmus explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The URL of the request; without a scheme, http
    #[arg(value_parser = parse_url)]
    pub(crate) url: String,
    /// Who sends it: a workload, as <name> or <namespace>/<name>, or ingress for a client
    /// outside
    #[arg(long, value_name = "WORKLOAD", default_value = INGRESS)]
    pub(crate) from: String,
    /// The method of the request
    #[arg(long, short = 'X', default_value = "GET", value_parser = parse_method)]
    pub(crate) method: Method,
    /// A header of the request; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<String>,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For machines
    Json,
    /// For both
    Yaml,
}

fn parse_url(text: &str) -> Result<String, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: http::Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err("not of the form http://host[:port]/path".to_owned()),
    }
}

fn parse_method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "not an HTTP method".to_owned())
}

/// Checks a header, and writes it as `name: value`.
fn parse_header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("not of the form name: value")?;
    let name: HeaderName = name.trim().parse().map_err(|_| "not a header name")?;
    let value = value.trim();
    HeaderValue::from_str(value).map_err(|_| "not a header value")?;
    Ok(format!("{name}: {value}"))
}

/// Who sends requests from outside.
pub(crate) const INGRESS: &str = "ingress";
const SETTINGS_FILE: &str = "cluster.yaml";

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage";

const EXAMPLES: &str = "Examples:
  isthmus demo
  isthmus up --print-settings > cluster.yaml
  isthmus up -f cluster.yaml --check
  isthmus up -f cluster.yaml
  isthmus status -f cluster.yaml
  isthmus explain http://cart.shop.svc.clusterset.local/ --from frontend -f cluster.yaml

Exit codes: 0 success, 1 failure, 2 wrong usage";

const UP_EXAMPLES: &str = "Examples:
  isthmus up --print-settings > cluster.yaml   a commented sample to edit
  isthmus up -f cluster.yaml --check           what is wrong with settings and manifests
  isthmus up -f cluster.yaml                   runs until SIGTERM or Ctrl-C, then drains

Manifests are watched: an edit takes effect at once. Settings are read at the start.";

const CA_EXAMPLES: &str = "Examples:
  isthmus ca -f cluster.yaml                   runs the authority alone
  isthmus ca bundle -f cluster.yaml            for the ClusterLink of another cluster
  isthmus ca rotate -f cluster.yaml            new root; the old one stays until it is unused";

const INSTALL_EXAMPLES: &str = "Examples:
  isthmus install --cluster aws-east --clusterset shop --dry-run
  isthmus install --cluster aws-east --clusterset shop --set controller.replicas=2
  isthmus install --context east --cluster aws-east --values values.yaml --yes
  isthmus install --cluster aws-east --dry-run -o yaml > isthmus.yaml

It takes the values of the chart in deploy/helm/isthmus and applies the same objects. A
second run with other values changes what differs.";

const UNINSTALL_EXAMPLES: &str = "Examples:
  isthmus uninstall --dry-run                  what would be deleted
  isthmus uninstall --context east
  isthmus uninstall --delete-crds              with every ClusterLink and GatewayParameters";

const EXPLAIN_EXAMPLES: &str = "Examples:
  isthmus explain http://cart.shop.svc.clusterset.local:8080/items --from frontend
  isthmus explain http://shop.example:8080/ -X POST -H 'x-canary: always'";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_ends_with_2_and_help_with_0() {
        for line in [
            "isthmus",
            "isthmus nothing",
            "isthmus up --check --print-settings",
            "isthmus sidecar -f a",
            "isthmus status -o xml",
            "isthmus explain http://",
            "isthmus explain ftp://a/",
            "isthmus explain http://a/ -H nocolon",
            "isthmus explain http://a/ -X b@d",
            "isthmus up -o json",
            "isthmus link join",
            "isthmus link join east",
            "isthmus link join east west --token t",
            "isthmus link join --token t --import shop",
            "isthmus link remove",
            "isthmus check extra",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("isthmus --help").unwrap_err().exit_code(), 0);
        assert_eq!(parse("isthmus --version").unwrap_err().kind(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn the_settings_file_may_stand_before_and_after_what_the_authority_is_asked() {
        for line in ["isthmus ca -f a.yaml bundle", "isthmus ca bundle -f a.yaml"] {
            let Command::Ca(args) = parse(line).unwrap().command else { panic!("{line}") };
            assert_eq!(args.file, PathBuf::from("a.yaml"));
            assert!(matches!(args.command, Some(CaCommand::Bundle)));
        }
        let Command::Ca(args) = parse("isthmus ca").unwrap().command else { panic!() };
        assert!(args.command.is_none());
    }

    #[test]
    fn a_request_to_explain_is_made_whole() {
        let line = ["isthmus", "explain", "a.test/x", "-H", "X-Canary:always", "-X", "POST"];
        let Command::Explain(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!(args.url, "http://a.test/x");
        assert_eq!(args.header, ["x-canary: always"]);
        assert_eq!((args.method, args.from.as_str()), (Method::POST, INGRESS));
    }

    #[test]
    fn the_reference_in_the_documentation_names_every_command_and_option() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
        let text = std::fs::read_to_string(path).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(text.contains(&format!("## isthmus {name}")), "{name} is not documented");
            let section = text.split(&format!("## isthmus {name}")).nth(1).unwrap();
            let section = section.split("\n## ").next().unwrap();
            for option in command.get_opts().filter_map(|option| option.get_long()) {
                assert!(section.contains(&format!("--{option}")), "{name} --{option}");
            }
        }
    }
}
