//! `isthmus install` and `isthmus uninstall`: the product in a cluster and out of it.
//!
//! Everything that is applied is built here, from the same values as the chart and equal
//! to what it renders. It is applied server-side under a field manager of its own, so a
//! second run is an upgrade and changes only what differs. Nothing is written before what
//! is missing has been named.
//!
//! # Flow
//!
//! 1. [`args`]: the command lines.
//! 2. [`values`]: what is wanted, checked.
//! 3. [`manifests`]: values to objects.
//! 4. `prerequisites`: whether the CRDs of others are there.
//! 5. `cluster`: reads, writes and questions; `corefile`: the edit of the cluster's DNS.
//! 6. `wait`: until everything runs, or why it does not.
//! 7. [`uninstall`]: the way back.

pub(crate) mod args;

mod cluster;

mod corefile;

pub(crate) mod manifests;

mod prerequisites;

pub(crate) mod uninstall;

pub(crate) mod values;

mod wait;

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::bail;
use isthmus_kubernetes::ObjectId;
use isthmus_kubernetes::install::{Applied, Installer};
use isthmus_model::name::SYSTEM_NAMESPACE;
use serde_json::Value;

use self::args::InstallArgs;
use self::cluster::{
    confirm, edit_corefile, installer, no_coredns, own, read, say, write_corefile,
};
use self::values::Values;
use super::reach::{block_on, explained};
use super::{crds, output};

/// Installs, or shows what would be installed.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if args.only_dns {
        block_on(async { set_up_dns(&mut installer(&args.access).await?, args).await })?;
        return Ok(ExitCode::SUCCESS);
    }
    let files: Vec<_> =
        args.values.values.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let values = Values::read(&files, &args.values.sets())?;
    if args.output.is_some() {
        print_manifests(&values, None)?;
    } else {
        block_on(install(args, &values))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn install(args: &InstallArgs, values: &Values) -> anyhow::Result<()> {
    let mut installer = installer(&args.access).await?;
    let found = prerequisites::check(&mut installer).await?;
    found.lines().iter().try_for_each(|line| say(line))?;
    let missing = found.missing();
    if !missing.is_empty() && !args.skip_crd_check {
        bail!("{}\nThen install again, or say --skip-crd-check", missing.join("\n"));
    }
    if args.dry_run {
        print_manifests(values, found.properties())?;
        return if args.no_dns { Ok(()) } else { set_up_dns(&mut installer, args).await };
    }
    let crds = crds::all();
    apply_all(&mut installer, &crds).await?;
    let names: Vec<String> = crds.iter().filter_map(|crd| name(crd).map(str::to_owned)).collect();
    wait::for_crds(&mut installer, &names, args.timeout.max(CRD_WAIT_MIN)).await?;
    apply_all(&mut installer, &[manifests::namespace()]).await?;
    apply_all(&mut installer, &manifests::objects(values, found.properties())).await?;
    if !args.no_dns {
        set_up_dns(&mut installer, args).await?;
    }
    if !args.timeout.is_zero() {
        wait::for_deployments(&mut installer, args.timeout).await?;
    }
    say(&format!(
        "Isthmus is installed: cluster {} of clusterset {}",
        values.cluster.name, values.clusterset.name
    ))?;
    Ok(())
}

fn print_manifests(values: &Values, properties: Option<&str>) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut all = crds::all();
    all.push(manifests::namespace());
    all.extend(manifests::objects(values, properties));
    for object in all {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object)?);
    }
    output::print(&text)
}

/// Applies objects in order. One that fails ends it, because what follows may need it.
async fn apply_all(installer: &mut Installer, objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        let applied = installer.apply(object).await.map_err(|failure| explained(&failure))?;
        let id = ObjectId::of(object)?;
        match applied {
            Applied::Unchanged => say(&format!("{id} unchanged"))?,
            Applied::Written => say(&format!("{id} applied"))?,
        }
    }
    Ok(())
}

/// Shows the edit of the Corefile, asks, and makes it.
async fn set_up_dns(installer: &mut Installer, args: &InstallArgs) -> anyhow::Result<()> {
    let id = own("v1", "Service", "isthmus-dns");
    let service = installer.get(&id).await.map_err(|failure| explained(&failure))?;
    let address = service.as_ref().and_then(|service| service["spec"]["clusterIP"].as_str());
    let server: IpAddr = match address.and_then(|address| address.parse().ok()) {
        Some(server) => server,
        // Nothing is installed yet, and nothing is written.
        None if args.dry_run => {
            say("The edit of the Corefile, with the address that Service isthmus-dns will have:")?;
            UNKNOWN
        }
        None => bail!("Service {SYSTEM_NAMESPACE}/isthmus-dns has no address: install first"),
    };
    let edit = edit_corefile(installer, |text| corefile::with_block(text, server)).await?;
    let Some(edit) = edit else {
        return Ok(say(&no_coredns(&server.to_string()))?);
    };
    if edit.diff.is_empty() {
        return Ok(say("The Corefile of kube-system/coredns has the stub domain")?);
    }
    say(&format!("Edit of the Corefile in ConfigMap kube-system/coredns:\n{}", edit.diff))?;
    if args.dry_run {
        return Ok(());
    }
    confirm("Make this edit?", args.yes)?;
    write_corefile(installer, &edit).await?;
    Ok(say("The Corefile of kube-system/coredns was edited")?)
}

fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name")?.as_str()
}

/// CRDs are waited for even by those who do not wait for pods: the objects need them.
const CRD_WAIT_MIN: std::time::Duration = std::time::Duration::from_secs(30);
/// Stands in a shown edit for an address that is not known yet.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
