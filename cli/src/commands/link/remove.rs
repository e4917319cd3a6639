//! `isthmus link remove`: the ClusterLink of one side, or those of both.

use anyhow::bail;

use super::args::RemoveArgs;
use super::side::{Side, named};
use crate::commands::install::args::AccessArgs;
use crate::commands::reach::say;

/// Removes on one side by a name, or on both by two contexts.
pub(super) async fn run(args: &RemoveArgs) -> anyhow::Result<()> {
    match args.names.as_slice() {
        [name] => one(args, name).await,
        [_, _] if args.access.context.is_some() => {
            bail!("give the name of one link with --context, or two contexts without it")
        }
        [a, b] => both(args, a, b).await,
        _ => bail!("give the name of a link, or two contexts"),
    }
}

async fn one(args: &RemoveArgs, name: &str) -> anyhow::Result<()> {
    let mut side = Side::connect(&args.access).await?;
    let links = side.links().await?;
    let Some(found) = named(&links, name) else {
        let known: Vec<&str> =
            links.iter().filter_map(|link| link["metadata"]["name"].as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("{}: there is no ClusterLink {name}; there are: {known}", side.label);
    };
    side.delete(found).await?;
    say(&format!("{}: ClusterLink {found} removed", side.label))?;
    say("the other side's ClusterLink stays and is down until it is removed there too")?;
    Ok(())
}

async fn both(args: &RemoveArgs, a: &str, b: &str) -> anyhow::Result<()> {
    let access = |context: &str| AccessArgs {
        context: Some(context.to_owned()),
        kubeconfig: args.access.kubeconfig.clone(),
    };
    let mut sides = [Side::connect(&access(a)).await?, Side::connect(&access(b)).await?];
    let mut clusters = Vec::new();
    for side in &mut sides {
        clusters.push(side.invitation().await?.cluster);
    }
    let mut removed = 0;
    for (side, other) in sides.iter_mut().zip(clusters.iter().rev()) {
        let links = side.links().await?;
        if let Some(found) = named(&links, other.as_str()) {
            side.delete(found).await?;
            removed += 1;
            say(&format!("{}: ClusterLink {found} removed", side.label))?;
        } else {
            say(&format!("{}: has no ClusterLink to {other}", side.label))?;
        }
    }
    if removed == 0 {
        bail!("{a} and {b} are not linked");
    }
    Ok(())
}
