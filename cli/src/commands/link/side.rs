//! One of the clusters of a link, as an operator reaches it.

use anyhow::{Context as _, bail};
use isthmus_kubernetes::ObjectId;
use isthmus_kubernetes::inspect::summary;
use isthmus_kubernetes::install::{Filter, Installer};
use isthmus_kubernetes::link::agree::{Standing, cluster_of, standing};
use isthmus_kubernetes::link::{CLUSTER_LINK, CONFIG_MAP, Invitation, LinkOptions};
use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::Value;

use crate::commands::install::args::AccessArgs;
use crate::commands::reach::{explained, label, reach};

/// A cluster.
#[derive(Debug)]
pub(super) struct Side {
    /// What the operator calls it.
    pub(super) label: String,
    installer: Installer,
}

impl Side {
    /// Connects by the named context.
    pub(super) async fn connect(access: &AccessArgs) -> anyhow::Result<Self> {
        let label = label(access);
        let connection = reach(access).await?;
        Ok(Self { label, installer: Installer::new(connection.client, MANAGER) })
    }

    /// The invitation that the cluster's controller publishes.
    pub(super) async fn invitation(&mut self) -> anyhow::Result<Invitation> {
        let label = self.label.clone();
        let id = own("v1", "ConfigMap", CONFIG_MAP);
        let found = self.installer.get(&id).await.map_err(|failure| explained(&failure))?;
        let Some(found) = found else {
            let controller = own("apps/v1", "Deployment", "isthmus-controller");
            let deployment = self.installer.get(&controller).await;
            if deployment.map_err(|failure| explained(&failure))?.is_none() {
                bail!("{label}: the cluster has no Isthmus: install it with `isthmus install`");
            }
            bail!(
                "{label}: the controller has not published its invitation (ConfigMap \
                 {SYSTEM_NAMESPACE}/{CONFIG_MAP}) yet: `isthmus check --context {label}` says \
                 what keeps it"
            );
        };
        Invitation::from_config_map(&found)
            .with_context(|| format!("{label}: ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}"))
    }

    /// The ClusterLinks of the cluster.
    pub(super) async fn links(&mut self) -> anyhow::Result<Vec<Value>> {
        self.list(CLUSTER_LINK.0, CLUSTER_LINK.1).await
    }

    /// The ClusterLinks as they are shown.
    pub(super) async fn shown(&mut self) -> anyhow::Result<Vec<Value>> {
        let links = self.links().await?;
        let mut imports = Vec::new();
        for version in ["v1beta1", "v1alpha1"] {
            if imports.is_empty() {
                let version = format!("multicluster.x-k8s.io/{version}");
                imports = self.list(&version, "ServiceImport").await?;
            }
        }
        Ok(summary::links(&links, &imports))
    }

    async fn list(&mut self, api_version: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
        let found = self.installer.list(api_version, kind, Filter::default()).await;
        found.map_err(|failure| explained(&failure))
    }

    /// The ClusterLink to another cluster that is to be applied here.
    ///
    /// # Errors
    ///
    /// One exists that contradicts it.
    pub(super) async fn prepare(
        &mut self,
        other: &Invitation,
        options: &LinkOptions,
        keep: Keep,
    ) -> anyhow::Result<Value> {
        let name = options.name.as_ref().map_or(other.cluster.as_str(), |name| name.as_str());
        let links = self.links().await?;
        prepared(&self.label, &links, other, (options, keep), name)
    }

    /// Applies an object.
    pub(super) async fn apply(&mut self, object: &Value) -> anyhow::Result<()> {
        let applied = self.installer.apply(object).await;
        applied.map_err(|failure| explained(&failure).context(self.label.clone()))?;
        Ok(())
    }

    /// Deletes a ClusterLink.
    pub(super) async fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        let id = ObjectId {
            api_version: CLUSTER_LINK.0.to_owned(),
            kind: CLUSTER_LINK.1.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        let deleted = self.installer.delete(&id).await;
        deleted.map_err(|failure| explained(&failure).context(self.label.clone()))
    }
}

/// Which rules of a ClusterLink that exists stay as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// Those of import.
    pub(super) import: bool,
    /// Those of export.
    pub(super) export: bool,
}

/// The ClusterLink to apply, or why one that exists is in the way. Pure.
fn prepared(
    label: &str,
    links: &[Value],
    other: &Invitation,
    (options, keep): (&LinkOptions, Keep),
    name: &str,
) -> anyhow::Result<Value> {
    let mut link = other.to_cluster_link(options);
    match standing(links, other, name) {
        Standing::Absent => Ok(link),
        Standing::Known { name } => {
            let old = links.iter().find(|old| old["metadata"]["name"] == name.as_str());
            link["metadata"]["name"] = Value::from(name);
            for (field, is_kept) in [("import", keep.import), ("export", keep.export)] {
                if let (true, Some(rules)) = (is_kept, old.and_then(|old| old["spec"].get(field))) {
                    link["spec"][field] = rules.clone();
                }
            }
            Ok(link)
        }
        Standing::NameTaken { cluster } => bail!(
            "{label}: ClusterLink {name} exists and leads to cluster {cluster}: give another \
             --name, or remove it with `isthmus link remove {name}`"
        ),
        Standing::KeptElsewhere { name } => bail!(
            "{label}: ClusterLink {name} exists and takes its bundle from a ConfigMap or a hash: \
             change it where it is kept, or remove it with `isthmus link remove {name}`"
        ),
        Standing::OtherAuthority { name } => bail!(
            "{label}: ClusterLink {name} exists with another bundle for {other}: if that cluster \
             was set up anew, remove the link with `isthmus link remove {name}` and join again; \
             if it was not, do not trust this token"
        ),
    }
}

/// The ClusterLink that an operator names, by itself or by the cluster that it leads to.
pub(super) fn named<'l>(links: &'l [Value], name: &str) -> Option<&'l str> {
    let own = |link: &'l Value| link["metadata"]["name"].as_str();
    let exact = links.iter().find(|link| own(link) == Some(name));
    exact.or_else(|| links.iter().find(|link| cluster_of(link) == name)).and_then(own)
}

fn own(api_version: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: name.to_owned(),
    }
}

/// Who the commands are in `managedFields`: not the controller, and not the installer.
const MANAGER: &str = "isthmus-link";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn invitation() -> Invitation {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain = isthmus_model::TrustDomain::new("west.demo").unwrap();
        let path = folder.path().join("state");
        let options = isthmus_certs::AuthorityOptions::new(path, trust_domain.clone());
        let now = isthmus_runtime::clock::wall();
        let authority = isthmus_certs::Authority::open(options, now).unwrap();
        Invitation {
            cluster: isthmus_model::ClusterId::new("west").unwrap(),
            clusterset: isthmus_model::ObjectName::new("demo").unwrap(),
            trust_domain,
            addresses: vec!["192.0.2.1:15443".to_owned()],
            bundle: String::from_utf8(authority.bundle().to_jwks()).unwrap(),
        }
    }

    const OPTIONS: LinkOptions = LinkOptions { name: None, import: Vec::new(), export: Vec::new() };

    fn outcome(links: &[Value], other: &Invitation, keep: Keep) -> Result<Value, String> {
        let outcome = prepared("east", links, other, (&OPTIONS, keep), "west");
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn a_link_that_is_joined_again_keeps_its_name_and_the_rules_that_are_not_given() {
        let other = invitation();
        let mut old = other.to_cluster_link(&OPTIONS);
        old["metadata"]["name"] = json!("to-west");
        old["spec"]["import"] = json!([{"namespaces": ["shop"], "names": ["*"]}]);
        old["spec"]["addresses"] = json!(["192.0.2.99:1"]);
        let old = [old];
        let link = outcome(&old, &other, Keep { import: true, export: true }).unwrap();
        assert_eq!(link["metadata"]["name"], "to-west");
        assert_eq!(link["spec"]["import"], old[0]["spec"]["import"]);
        assert_eq!(link["spec"]["addresses"], json!(["192.0.2.1:15443"]));
        let link = outcome(&old, &other, Keep { import: false, export: true }).unwrap();
        assert_eq!(link["spec"]["import"], json!([]));
    }

    #[test]
    fn a_link_in_the_way_is_named_with_what_to_do() {
        let (other, again) = (invitation(), invitation());
        let old = [other.to_cluster_link(&OPTIONS)];
        let keep = Keep { import: true, export: true };
        let error = outcome(&old, &again, keep).unwrap_err();
        assert!(error.starts_with("east: ClusterLink west exists with another bundle"), "{error}");
        assert!(error.contains("isthmus link remove west"), "{error}");
        let mut elsewhere = old;
        elsewhere[0]["spec"]["bundle"] = json!({"configMapRef": {"name": "west"}});
        assert!(outcome(&elsewhere, &other, keep).unwrap_err().contains("from a ConfigMap"));
    }

    #[test]
    fn a_link_is_found_by_its_name_before_its_cluster() {
        let link = |name: &str, cluster: &str| json!({"metadata": {"name": name}, "spec": {"cluster": cluster}});
        let links = [link("x", "west"), link("west", "north")];
        assert_eq!(named(&links, "west"), Some("west"));
        assert_eq!(named(&links, "north"), Some("west"));
        assert_eq!(named(&links[..1], "west"), Some("x"));
        assert_eq!(named(&links, "south"), None);
    }
}
