//! `demo.yaml`: the sample applications, the wide area network and the traffic.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What the demo runs besides what the clusters' own settings say.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The clusters in the order they are shown.
    pub(crate) clusters: Vec<Cluster>,
    /// The wide area network between them.
    pub(crate) paths: Vec<WanPath>,
    /// The requests that are sent all the time.
    pub(crate) traffic: Vec<Flow>,
}

/// One cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cluster {
    /// Its name, which is also its folder.
    pub(crate) name: String,
    /// Its admin endpoint.
    pub(crate) admin: SocketAddr,
    /// Its sample applications.
    #[serde(default)]
    pub(crate) apps: Vec<App>,
}

/// One sample application.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct App {
    /// The service it is an endpoint of.
    pub(crate) service: String,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
}

/// One path of the wide area network.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WanPath {
    /// Its name in commands to the relay.
    pub(crate) name: String,
    /// The cluster that dials.
    pub(crate) from: String,
    /// Where it dials, UDP and TCP.
    pub(crate) listen: SocketAddr,
    /// Where the relay passes it on to.
    pub(crate) to: SocketAddr,
    /// The round trip that the relay adds, in milliseconds.
    pub(crate) rtt_millis: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Flow {
    /// How it is shown.
    pub(crate) name: String,
    /// Where the TCP connection goes.
    pub(crate) connect: SocketAddr,
    /// Whether `connect` is an HTTP proxy. Default: false.
    #[serde(default)]
    pub(crate) proxy: bool,
    /// What is asked for.
    #[serde(with = "uri_text")]
    pub(crate) url: http::Uri,
    /// Requests a second; 1 to 1000.
    pub(crate) per_second: u32,
}

impl Scenario {
    /// Reads `demo.yaml` of a folder.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    /// Reads the text of `demo.yaml`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let scenario: Self = serde_saphyr::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The names of the flows.
    pub(crate) fn flows(&self) -> Vec<String> {
        self.traffic.iter().map(|flow| flow.name.clone()).collect()
    }

    fn check(&self) -> Result<()> {
        if self.clusters.is_empty() {
            bail!("clusters: must have an entry");
        }
        for (index, flow) in self.traffic.iter().enumerate() {
            if !(1..=PER_SECOND_MAX).contains(&flow.per_second) {
                bail!("traffic[{index}].perSecond: must be 1 to {PER_SECOND_MAX}");
            }
            if flow.url.host().is_none() {
                bail!("traffic[{index}].url: must be an absolute URL");
            }
        }
        for (index, path) in self.paths.iter().enumerate() {
            if path.rtt_millis > RTT_MILLIS_MAX {
                bail!("paths[{index}].rttMillis: must be at most {RTT_MILLIS_MAX}");
            }
            if !self.clusters.iter().any(|cluster| cluster.name == path.from) {
                bail!("paths[{index}].from: {} is not one of the clusters", path.from);
            }
        }
        Ok(())
    }
}

mod uri_text {
    use serde::{Deserialize as _, Deserializer, de::Error as _};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<http::Uri, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The file's name in the folder of the demo.
pub(crate) const FILE: &str = "demo.yaml";
const PER_SECOND_MAX: u32 = 1000;
const RTT_MILLIS_MAX: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_from_an_unknown_cluster_is_named() {
        let text = "clusters: [{name: a, admin: '127.0.0.1:1'}]\ntraffic: []\n\
            paths: [{name: p, from: b, listen: '127.0.0.1:2', to: '127.0.0.1:3', rttMillis: 1}]";
        let error = Scenario::parse(text).unwrap_err().to_string();
        assert_eq!(error, "paths[0].from: b is not one of the clusters");
    }

    #[test]
    fn a_url_without_a_host_is_named() {
        let text = "clusters: [{name: a, admin: '127.0.0.1:1'}]\npaths: []\n\
            traffic: [{name: f, connect: '127.0.0.1:2', url: /cart, perSecond: 1}]";
        let error = Scenario::parse(text).unwrap_err().to_string();
        assert_eq!(error, "traffic[0].url: must be an absolute URL");
    }
}
