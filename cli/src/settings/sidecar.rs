//! Settings of one workload and its sidecar.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use isthmus_model::{Label, Locality, ServiceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;

/// One workload with a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SidecarSettings {
    /// The name of the workload. Required.
    #[schemars(with = "String")]
    pub(crate) name: Label,
    /// Its namespace. Required.
    #[schemars(with = "String")]
    pub(crate) namespace: Label,
    /// Its service account. The identity of the workload is
    /// spiffe://<trustDomain>/ns/<namespace>/sa/<serviceAccount>. Default: default.
    #[serde(default = "default_account")]
    #[schemars(with = "String")]
    pub(crate) service_account: Label,
    /// Its labels, by which policies select it. Default: none.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The Unix user that may ask the certificate authority for this identity.
    /// Default: the user of the authority's process.
    #[serde(default)]
    #[schemars(example = 1000)]
    pub(crate) uid: Option<u32>,
    /// The region of the workload. Default: the cluster's.
    #[serde(default)]
    #[schemars(example = "us-east-1")]
    pub(crate) region: Option<String>,
    /// The zone of the workload. Default: the cluster's.
    #[serde(default)]
    #[schemars(example = "us-east-1a")]
    pub(crate) zone: Option<String>,
    /// Its IP address, as it stands in EndpointSlices. Required.
    pub(crate) address: IpAddr,
    /// The ports of the application, as they stand in EndpointSlices.
    /// Default: none, which means every port of the address.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    /// The IP address on which the application listens. Default: address.
    #[serde(default)]
    #[schemars(example = "127.0.0.1")]
    pub(crate) application: Option<IpAddr>,
    /// Where the sidecar takes mTLS from other workloads. Required.
    #[schemars(with = "String")]
    pub(crate) mesh: SocketAddr,
    /// Where the sidecar takes HTTP requests of the application, which uses it as its HTTP
    /// proxy. A loopback address, because whoever reaches it has the workload's identity.
    /// Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = "127.0.0.1:15001")]
    pub(crate) outbound: Option<SocketAddr>,
    /// Where the sidecar takes both mTLS and, as far as PeerAuthentication allows it,
    /// plaintext for the application. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = "127.0.0.1:15006")]
    pub(crate) inbound: Option<SocketAddr>,
    /// TCP ports that the sidecar opens for the application to reach a service. Default: none.
    #[serde(default)]
    pub(crate) tcp: Vec<TcpSettings>,
}

impl SidecarSettings {
    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Where the workload runs.
    pub(crate) fn locality(&self, settings: &Settings) -> Locality {
        let region = self.region.as_ref().unwrap_or(&settings.region);
        let zone = self.zone.as_ref().unwrap_or(&settings.zone);
        Locality::new(region, zone)
    }
}

/// One TCP port that reaches a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TcpSettings {
    /// Where the application connects to. A loopback address. Required.
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
    /// The service, by its full DNS name below svc.cluster.local or svc.clusterset.local.
    /// Required.
    #[serde(with = "service_host")]
    #[schemars(with = "String")]
    pub(crate) service: ServiceKey,
    /// The port of the service. Required.
    pub(crate) port: u16,
}

fn default_account() -> Label {
    Label::new("default").expect("the constant is a label")
}

/// A service by its DNS name.
mod service_host {
    use isthmus_model::ServiceKey;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        key: &ServiceKey,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key.host())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ServiceKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        ServiceKey::from_host(&text).ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            D::Error::custom(format_args!(
                "{text:?} is not <service>.<namespace>.svc.clusterset.local or ….svc.cluster.local"
            ))
        })
    }
}
