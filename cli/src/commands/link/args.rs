//! The command lines of `isthmus link`.

use std::time::Duration;

use clap::{Args, Subcommand};
use isthmus_config::{AccessRule, NamePattern};
use isthmus_kubernetes::link::LinkOptions;
use isthmus_model::{Label, ObjectName};

use crate::args::OutputArgs;
use crate::commands::install::args::{AccessArgs, parse_duration};

/// What to do with links.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Print the token by which another cluster links with this one
    Token(TokenArgs),
    /// Link two clusters: by two contexts, or one side by the token of the other
    #[command(after_long_help = JOIN_EXAMPLES)]
    Join(JoinArgs),
    /// Show the links of a cluster
    Status(LinkStatusArgs),
    /// Remove a link: on one side by its name, or on both by two contexts
    Remove(RemoveArgs),
}

/// Arguments of `isthmus link token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// Arguments of `isthmus link join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Two contexts of the kubeconfig
    #[arg(value_names = ["CONTEXT", "CONTEXT"], num_args = 2, conflicts_with_all = ["token", "context"], required_unless_present = "token")]
    pub(crate) contexts: Vec<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// The token of the other cluster, or - to read it from standard input
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// What is taken, as <namespace>/<name>[:<port>,...] with * for any; may be given
    /// several times; */* unless given
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    pub(crate) import: Vec<AccessRule>,
    /// What is offered of that which has a ServiceExport; as --import
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    pub(crate) export: Vec<AccessRule>,
    /// The name of the ClusterLink, with --token; the other cluster's id unless given
    #[arg(long, requires = "token", value_parser = parse_name)]
    pub(crate) name: Option<ObjectName>,
    /// How long to wait until the link is connected; 0s does not wait. 2m with two
    /// contexts, 0s with --token
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

impl JoinArgs {
    /// What the new ClusterLinks say. Rules that are not given take everything: what may
    /// cross is still only what has a ServiceExport.
    pub(crate) fn options(&self) -> LinkOptions {
        let or_all = |rules: &[AccessRule]| {
            let any = || vec![NamePattern::Any];
            let all = || vec![AccessRule { namespaces: any(), names: any(), ports: Vec::new() }];
            if rules.is_empty() { all() } else { rules.to_vec() }
        };
        LinkOptions {
            name: self.name.clone(),
            import: or_all(&self.import),
            export: or_all(&self.export),
        }
    }
}

/// Arguments of `isthmus link status`.
#[derive(Debug, Args)]
pub(crate) struct LinkStatusArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `isthmus link remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The ClusterLink (or the cluster that it leads to), or two contexts of the kubeconfig
    #[arg(value_name = "NAME|CONTEXT", num_args = 1..=2, required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

fn parse_name(text: &str) -> Result<ObjectName, String> {
    ObjectName::new(text).map_err(|error| error.to_string())
}

fn parse_rule(text: &str) -> Result<AccessRule, String> {
    let (namespace, rest) = text.split_once('/').ok_or(RULE_FORM)?;
    let (name, ports) = match rest.split_once(':') {
        Some((name, ports)) => (name, ports.split(',').collect()),
        None => (rest, Vec::new()),
    };
    let pattern = |text: &str| match text {
        "*" => Ok(NamePattern::Any),
        name => Label::new(name).map(NamePattern::Name).map_err(|error| error.to_string()),
    };
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(RULE_FORM);
    Ok(AccessRule {
        namespaces: vec![pattern(namespace)?],
        names: vec![pattern(name)?],
        ports: ports.into_iter().map(port).collect::<Result<_, _>>()?,
    })
}

const RULE_FORM: &str = "not of the form <namespace>/<name>[:<port>,<port>]";

const JOIN_EXAMPLES: &str = "Examples:
  isthmus link join east west                     both sides, by contexts of one kubeconfig
  isthmus link join east west --export 'shop/*'   only services of the namespace shop

By token, where nobody may write to both clusters:
  isthmus link token --context east               run by the operator of east
  isthmus link join --context west --token T      by the operator of west; prints west's token
  isthmus link join --context east --token U      by the operator of east, with that token";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_namespace_service_and_ports() {
        let rule = parse_rule("shop/cart:80,8080").unwrap();
        assert_eq!((rule.names[0].to_string(), rule.ports), ("cart".to_owned(), vec![80, 8080]));
        let rule = parse_rule("*/*").unwrap();
        assert_eq!((rule.namespaces, rule.ports), (vec![NamePattern::Any], Vec::new()));
        for bad in ["shop", "shop/", "Shop/x", "shop/cart:", "shop/cart:0", "shop/cart:http"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
