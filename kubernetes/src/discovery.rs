//! Which resource of the server serves a kind, in which version.

use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::{Api, Client};

/// A kind that the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

impl Served {
    /// The objects of the kind in a namespace; the empty one is all of them.
    pub(crate) fn api(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client, namespace, &self.resource)
        } else {
            Api::all_with(client, &self.resource)
        }
    }
}

/// Finds the best served version of a kind, or none.
pub(crate) async fn find(
    client: &Client,
    group: &str,
    kind: &str,
    versions: &[&str],
) -> Result<Option<Served>, kube::Error> {
    let mut versions = served_versions(client, group, versions).await?;
    versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    for version in versions {
        let listed = if group.is_empty() {
            client.list_core_api_resources(version).await
        } else {
            client.list_api_group_resources(&api_version(group, version)).await
        };
        let listed = match listed {
            Ok(listed) => listed,
            // It may have gone since the groups were listed.
            Err(error) if code(&error) == Some(404) => continue,
            Err(error) => return Err(error),
        };
        // Subresources are listed with a slash in their name.
        let found = listed.resources.into_iter().find(|r| r.kind == kind && !r.name.contains('/'));
        if let Some(found) = found {
            let resource = ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version(group, version),
                kind: kind.to_owned(),
                plural: found.name,
            };
            return Ok(Some(Served { resource, namespaced: found.namespaced }));
        }
    }
    Ok(None)
}

/// Those of the versions that the server has; asking for one that it has not would be a
/// warning in the log of the client, every few seconds.
async fn served_versions<'v>(
    client: &Client,
    group: &str,
    versions: &[&'v str],
) -> Result<Vec<&'v str>, kube::Error> {
    if group.is_empty() {
        return Ok(versions.to_vec());
    }
    let groups = client.list_api_groups().await?.groups;
    let served = groups.into_iter().find(|served| served.name == group);
    let served = served.map(|served| served.versions).unwrap_or_default();
    let is_served = |version: &&&str| served.iter().any(|served| served.version == **version);
    Ok(versions.iter().filter(is_served).copied().collect())
}

/// `v1` for the core group, `group/v1` for others.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The HTTP status that the server answered with, if it answered.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error { Some(status.code) } else { None }
}

/// How mature a version is: stable before beta before alpha, then the higher number.
///
/// Spec: Kubernetes "Version priority" of custom resources.
fn rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let number = |text: &str| text.parse().unwrap_or(0);
    if let Some((major, minor)) = rest.split_once("beta") {
        (2, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (1, number(major), number(minor))
    } else {
        (3, number(rest), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred_to_newer_alphas() {
        let mut versions = ["v1alpha1", "v1", "v1beta2", "v2alpha1", "v1beta1", "v2"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha1"]);
    }
}
