//! The command lines of `isthmus install` and `isthmus uninstall`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use isthmus_kubernetes::Access;
use serde_json::{Value, json};

/// Which cluster is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArgs {
    /// The context of the kubeconfig; without it the current one
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// The kubeconfig; without it those that kubectl reads
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl AccessArgs {
    /// The kubeconfig and the context that were named.
    pub(crate) fn to_access(&self) -> Access {
        Access::Kubeconfig { path: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// Arguments of `isthmus install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    /// Leave the Corefile of the cluster's DNS as it is
    #[arg(long)]
    pub(crate) no_dns: bool,
    /// Edit the Corefile and nothing else, after an installation by Helm
    #[arg(long, conflicts_with_all = ["no_dns", "output"])]
    pub(crate) only_dns: bool,
    /// Do not look whether the CRDs of the Gateway API and of the MCS API are there
    #[arg(long)]
    pub(crate) skip_crd_check: bool,
    /// Print the manifests and the edit of the Corefile, and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print only the manifests, without asking the cluster anything
    #[arg(short, long, value_enum, requires = "dry_run")]
    pub(crate) output: Option<Manifests>,
    /// Do not ask before the Corefile is edited
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long to wait until everything is available; 0s does not wait
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// What is to be installed.
#[derive(Debug, Args)]
pub(crate) struct ValueArgs {
    /// The id of the cluster, unique in its clusterset
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// The clusterset, the same in every cluster that is to be linked
    #[arg(long, value_name = "NAME")]
    pub(crate) clusterset: Option<String>,
    /// The region of the cluster, for pods whose node does not say its own
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The zone of the cluster, for pods whose node does not say its own
    #[arg(long)]
    pub(crate) zone: Option<String>,
    /// The image of every component, as <repository>:<tag>
    #[arg(long, value_parser = parse_image)]
    pub(crate) image: Option<Image>,
    /// A file of values, as the chart has them; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,
    /// A value of the chart, as in controller.replicas=2; may be given several times
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_set)]
    pub(crate) set: Vec<(String, Value)>,
}

impl ValueArgs {
    /// What the flags set, as paths and values; `--set` comes last.
    pub(crate) fn sets(&self) -> Vec<(String, Value)> {
        let mut sets = Vec::new();
        let flags = [
            ("cluster.name", &self.cluster),
            ("clusterset.name", &self.clusterset),
            ("cluster.region", &self.region),
            ("cluster.zone", &self.zone),
        ];
        for (path, text) in flags {
            sets.extend(text.as_ref().map(|text| (path.to_owned(), json!(text))));
        }
        if let Some(image) = &self.image {
            sets.push(("image.repository".to_owned(), json!(image.repository)));
            sets.push(("image.tag".to_owned(), json!(image.tag)));
        }
        sets.extend(self.set.iter().cloned());
        sets
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    repository: String,
    tag: String,
}

/// The form of manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manifests {
    /// Documents of YAML
    Yaml,
}

/// Arguments of `isthmus uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Keep the CRDs of isthmus.io; those that have objects are kept anyway
    #[arg(long)]
    pub(crate) keep_crds: bool,
    /// Delete the CRDs of isthmus.io with all their objects
    #[arg(long, conflicts_with = "keep_crds")]
    pub(crate) delete_crds: bool,
    /// Print what would be deleted, and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How long to wait until everything is gone
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

fn parse_image(text: &str) -> Result<Image, String> {
    // A registry's port is not a tag.
    match text.rsplit_once(':') {
        Some((repository, tag))
            if !repository.is_empty() && !tag.is_empty() && !tag.contains('/') =>
        {
            Ok(Image { repository: repository.to_owned(), tag: tag.to_owned() })
        }
        _ => Err("not of the form <repository>:<tag>".to_owned()),
    }
}

/// The value is read as YAML, so `2` is a number and `"2"` is text.
fn parse_set(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or("not of the form <path>=<value>")?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err("the path has an empty part".to_owned());
    }
    let value = if value.is_empty() {
        json!("")
    } else {
        serde_saphyr::from_str(value).map_err(|error| format!("not a value: {error}"))?
    };
    Ok((path.to_owned(), value))
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| FORM.to_owned())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(FORM.to_owned()),
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

const FORM: &str = "not of the form 30s, 3m or 1h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_tag_and_its_registry_may_have_a_port() {
        let image = parse_image("registry.test:5000/a/isthmus:v1").unwrap();
        assert_eq!(
            (image.repository.as_str(), image.tag.as_str()),
            ("registry.test:5000/a/isthmus", "v1")
        );
        assert!(parse_image("registry.test:5000/isthmus").is_err());
        assert!(parse_image("isthmus").is_err());
    }

    #[test]
    fn values_are_read_as_yaml() {
        assert_eq!(parse_set("a.b=2").unwrap(), ("a.b".to_owned(), json!(2)));
        assert_eq!(parse_set("a=[IPv6]").unwrap().1, json!(["IPv6"]));
        assert_eq!(parse_set("a=b=c").unwrap().1, json!("b=c"));
        assert_eq!(parse_set("a=").unwrap().1, json!(""));
        assert!(parse_set("a").is_err());
        assert!(parse_set("a..b=1").is_err());
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(parse_duration("3m").unwrap(), Duration::from_secs(180));
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "3", "m", "-1s", "1d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
