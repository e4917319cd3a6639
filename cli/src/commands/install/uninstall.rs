//! `isthmus uninstall`: what install and the controllers have made, away again.
//!
//! The order leaves nothing behind: first the cluster's DNS stops asking us, then the
//! controller goes, which would make again what is deleted, then what it has made, then
//! what install has applied, the namespace, and the CRDs that have no objects. Statuses of
//! the user's own objects stay as they are.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use isthmus_kubernetes::ObjectId;
use isthmus_kubernetes::apply::{FIELD_MANAGER, MANAGED_LABEL};
use isthmus_kubernetes::install::{Filter, Installer};
use isthmus_model::name::SYSTEM_NAMESPACE;
use isthmus_runtime::clock;
use serde_json::Value;

use super::args::UninstallArgs;
use super::cluster::{POLL, confirm, edit_corefile, installer, named, own, say, write_corefile};
use super::manifests::{MANAGER, PART, PART_LABEL};
use super::{corefile, name};
use crate::commands::crds;
use crate::commands::reach::{block_on, explained};

/// What is to be deleted.
#[derive(Debug, Default)]
struct Removal {
    /// Made by the controllers, in any namespace.
    provisioned: Vec<ObjectId>,
    /// Applied by install.
    installed: Vec<ObjectId>,
    has_namespace: bool,
    crds: Vec<ObjectId>,
    /// CRDs that stay, and how many objects they have.
    kept: Vec<(String, usize)>,
}

/// Removes, or shows what would be removed.
pub(crate) fn run(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    block_on(uninstall(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    let mut installer = installer(&args.access).await?;
    refuse_helm(&mut installer).await?;
    let edit = edit_corefile(&mut installer, corefile::without_block).await?;
    let edit = edit.filter(|edit| !edit.diff.is_empty());
    let removal = find(&mut installer, args).await?;
    show(&removal)?;
    if let Some(edit) = &edit {
        say(&format!("Edit of the Corefile in ConfigMap kube-system/coredns:\n{}", edit.diff))?;
    }
    if edit.is_none() && removal.is_empty() {
        return Ok(say("Nothing of Isthmus is there")?);
    }
    if args.dry_run {
        return Ok(());
    }
    confirm("Delete all of this, with the keys of the certificate authority?", args.yes)?;
    if let Some(edit) = &edit {
        write_corefile(&mut installer, edit).await?;
        say("The Corefile of kube-system/coredns was edited")?;
    }
    stop_controller(&mut installer, args.timeout).await?;
    // What the controller has made since it was shown is of the same kinds.
    let removal = find(&mut installer, args).await?;
    delete_all(&mut installer, &removal.provisioned).await?;
    delete_all(&mut installer, &removal.installed).await?;
    if removal.has_namespace {
        let id = named("v1", "Namespace", "", SYSTEM_NAMESPACE);
        delete_all(&mut installer, std::slice::from_ref(&id)).await?;
        gone(&mut installer, &id, args.timeout).await?;
    }
    delete_all(&mut installer, &removal.crds).await?;
    for id in removal.provisioned.iter().chain(&removal.crds) {
        gone(&mut installer, id, args.timeout).await?;
    }
    Ok(say("Isthmus is uninstalled")?)
}

/// Helm keeps books of its own, which would then be wrong.
async fn refuse_helm(installer: &mut Installer) -> anyhow::Result<()> {
    let id = own("apps/v1", "Deployment", "isthmus-controller");
    let found = installer.get(&id).await.map_err(|failure| explained(&failure))?;
    let labels = found.as_ref().and_then(|object| object.pointer("/metadata/labels"));
    if labels.and_then(|labels| labels.get(MANAGED_LABEL)).is_some_and(|by| by == "Helm") {
        bail!(
            "Isthmus was installed by Helm. First: helm uninstall isthmus -n {SYSTEM_NAMESPACE}\n\
             Then again isthmus uninstall, for what the chart does not know: the Corefile, what \
             was made for Gateways, the namespace and the CRDs"
        );
    }
    Ok(())
}

async fn find(installer: &mut Installer, args: &UninstallArgs) -> anyhow::Result<Removal> {
    let provisioned = format!("{MANAGED_LABEL}={FIELD_MANAGER}");
    let installed = format!("{PART_LABEL}={PART},{MANAGED_LABEL}={MANAGER}");
    let namespace = named("v1", "Namespace", "", SYSTEM_NAMESPACE);
    let found = installer.get(&namespace).await.map_err(|failure| explained(&failure))?;
    let mut removal = Removal {
        provisioned: list(installer, PROVISIONED, &provisioned).await?,
        installed: list(installer, INSTALLED, &installed).await?,
        has_namespace: found.is_some(),
        ..Removal::default()
    };
    // The namespace takes them along.
    removal.provisioned.retain(|id| id.namespace != SYSTEM_NAMESPACE);
    if args.keep_crds {
        return Ok(removal);
    }
    for crd in crds::all() {
        let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let id = ObjectId::of(&crd)?;
        if installer.get(&id).await.map_err(|failure| explained(&failure))?.is_none() {
            continue;
        }
        let api_version = format!("{}/{}", text("/spec/group"), text("/spec/versions/0/name"));
        let objects = installer.list(&api_version, text("/spec/names/kind"), Filter::default());
        let objects = objects.await.map_err(|failure| explained(&failure))?.len();
        if objects > 0 && !args.delete_crds {
            removal.kept.push((name(&crd).unwrap_or_default().to_owned(), objects));
        } else {
            removal.crds.push(id);
        }
    }
    Ok(removal)
}

async fn list(
    installer: &mut Installer,
    kinds: &[(&str, &str)],
    labels: &str,
) -> anyhow::Result<Vec<ObjectId>> {
    let mut ids: Vec<ObjectId> = Vec::new();
    for (api_version, kind) in kinds {
        let filter = Filter { labels, ..Filter::default() };
        let objects = installer.list(api_version, kind, filter).await;
        for object in objects.map_err(|failure| explained(&failure))? {
            let id = ObjectId::of(&object)?;
            // A kind that is served in two versions has each object in both.
            let is_same = |known: &ObjectId| {
                (known.group(), &known.kind, &known.namespace, &known.name)
                    == (id.group(), &id.kind, &id.namespace, &id.name)
            };
            if !ids.iter().any(is_same) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

impl Removal {
    fn is_empty(&self) -> bool {
        let parts = [&self.provisioned, &self.installed, &self.crds];
        parts.iter().all(|part| part.is_empty()) && !self.has_namespace
    }
}

fn show(removal: &Removal) -> anyhow::Result<()> {
    let part = |title: &str, ids: &[ObjectId]| -> anyhow::Result<()> {
        if !ids.is_empty() {
            say(title)?;
            ids.iter().try_for_each(|id| say(&format!("  {id}")))?;
        }
        Ok(())
    };
    part("Made for Gateways and imported services:", &removal.provisioned)?;
    part("Installed:", &removal.installed)?;
    if removal.has_namespace {
        say(&format!("The namespace {SYSTEM_NAMESPACE} with everything in it"))?;
    }
    part("CRDs, with their objects:", &removal.crds)?;
    for (name, objects) in &removal.kept {
        say(&format!(
            "CustomResourceDefinition {name} stays: it has {objects} object(s); delete them, or \
             say --delete-crds"
        ))?;
    }
    Ok(())
}

/// Ends the controller and waits for its pods, which would undo what follows.
async fn stop_controller(installer: &mut Installer, limit: Duration) -> anyhow::Result<()> {
    let id = own("apps/v1", "Deployment", "isthmus-controller");
    delete_all(installer, std::slice::from_ref(&id)).await?;
    let end = clock::now() + limit;
    let labels = "app.kubernetes.io/name=isthmus,app.kubernetes.io/component=controller";
    loop {
        let filter = Filter { namespace: SYSTEM_NAMESPACE, labels, fields: "" };
        let pods = installer.list("v1", "Pod", filter).await;
        let pods = pods.map_err(|failure| explained(&failure))?;
        let Some(pod) = pods.first() else { return Ok(()) };
        if clock::now() >= end {
            let name = name(pod).unwrap_or_default();
            bail!("pod {SYSTEM_NAMESPACE}/{name} does not end after {} s", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn delete_all(installer: &mut Installer, ids: &[ObjectId]) -> anyhow::Result<()> {
    for id in ids {
        installer.delete(id).await.map_err(|failure| explained(&failure))?;
        say(&format!("{id} deleted"))?;
    }
    Ok(())
}

async fn gone(installer: &mut Installer, id: &ObjectId, limit: Duration) -> anyhow::Result<()> {
    let end = clock::now() + limit;
    while let Some(object) = installer.get(id).await.map_err(|failure| explained(&failure))? {
        if clock::now() >= end {
            let shown = |pointer: &str| object.pointer(pointer).unwrap_or(&Value::Null).clone();
            bail!(
                "{id} is still there after {} s: finalizers {} {}, conditions {}",
                limit.as_secs(),
                shown("/metadata/finalizers"),
                shown("/spec/finalizers"),
                shown("/status/conditions")
            );
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// What the controllers make; owners before what they own.
const PROVISIONED: &[(&str, &str)] = &[
    ("multicluster.x-k8s.io/v1beta1", "ServiceImport"),
    ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
];
/// What install applies; what uses rights before the rights.
const INSTALLED: &[(&str, &str)] = &[
    ("gateway.networking.k8s.io/v1", "GatewayClass"),
    ("about.k8s.io/v1beta1", "ClusterProperty"),
    ("about.k8s.io/v1alpha1", "ClusterProperty"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "ServiceAccount"),
];
