//! `isthmus link status`: the links of one cluster, as its controller writes them.

use serde_json::{Value, json};

use super::args::LinkStatusArgs;
use super::side::Side;
use crate::commands::output;
use crate::commands::status::cluster::link_table;

/// Prints the links.
pub(super) async fn run(args: &LinkStatusArgs) -> anyhow::Result<()> {
    let mut side = Side::connect(&args.access).await?;
    let links = side.shown().await?;
    let value = json!({"links": links});
    output::show(&value, args.output.output, |paint, wide| {
        let rows: &[Value] = &links;
        if rows.is_empty() {
            return "there is no ClusterLink: `isthmus link join` makes one\n".to_owned();
        }
        link_table(rows, wide).render(paint)
    })
}
