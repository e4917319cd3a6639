//! `isthmus status --context`: the state of a cluster as its API server has it.

use std::process::ExitCode;

use isthmus_kubernetes::inspect::{inspect, summary};
use isthmus_runtime::clock;
use serde_json::Value;

use super::{micros, summary_lines};
use crate::args::Output;
use crate::commands::install::args::AccessArgs;
use crate::commands::output::{self, Paint};
use crate::commands::reach::{block_on, label, reach};
use crate::commands::table::{Table, cell};

/// Reads the cluster and prints its state.
pub(crate) fn run(access: &AccessArgs, form: Output) -> anyhow::Result<ExitCode> {
    let inspection = block_on(async {
        let connection = reach(access).await?;
        Ok(inspect(&connection.client, clock::wall()).await)
    })?;
    let status = summary::summary(&inspection);
    if status["installed"] != true {
        let label = label(access);
        anyhow::bail!("{label}: the cluster has no Isthmus: install it with `isthmus install`");
    }
    output::show(&status, form, |paint, wide| text(&status, paint, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value, paint: Paint, wide: bool) -> String {
    let routes = status["routes"].as_object().into_iter().flatten();
    let routes: Vec<String> =
        routes.map(|(kind, count)| format!("{} {kind}", cell(count))).collect();
    let mut text = summary_lines(
        &[
            ("Cluster", cell(&status["cluster"])),
            ("Clusterset", cell(&status["clusterset"])),
            ("Trust domain", cell(&status["trustDomain"])),
            ("Version", cell(&status["version"])),
            ("Leader", cell(&status["leader"])),
            ("Address", cell(&status["addresses"])),
            ("Routes", routes.join(", ")),
        ],
        paint,
    );
    let sections: [(&str, &str, Section); 5] = [
        ("deployments", "Deployments", deployments),
        ("gateways", "Gateways", gateways),
        ("links", "Links", link_table),
        ("imports", "Imports", imports),
        ("exports", "Exports", exports),
    ];
    for (name, title, table) in sections {
        if let Some(rows) = status[name].as_array().filter(|rows| !rows.is_empty()) {
            text.push_str(&format!("\n{}\n", paint.head(title)));
            text.push_str(&table(rows, wide).render(paint));
        }
    }
    if let Some(problems) = status["problems"].as_u64().filter(|problems| *problems > 0) {
        let line = format!("{problems} problems: `isthmus check` names them");
        text.push_str(&format!("\n{}\n", paint.bad(&line)));
    }
    text
}

/// Rows of a section to its table, wide or not.
type Section = fn(&[Value], bool) -> Table;

fn deployments(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["DEPLOYMENT", "READY"];
    if wide {
        columns.push("IMAGE");
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let ready = format!("{}/{}", cell(&row["ready"]), cell(&row["wanted"]));
        table.row([full_name(row), ready, cell(&row["image"])]);
    }
    table
}

fn gateways(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["GATEWAY", "CLASS", "ADDRESS", "PROGRAMMED", "ROUTES", "PODS"];
    if wide {
        columns.extend(["LISTENERS", "REASON", "MESSAGE"]);
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let fields = ["class", "addresses", "programmed", "attachedRoutes", "pods", "listeners"];
        let mut cells = vec![full_name(row)];
        cells.extend(fields.map(|field| cell(&row[field])));
        cells.extend([cell(&row["reason"]), cell(&row["message"])]);
        table.row(cells);
    }
    table
}

/// The table of links; `isthmus link status` shows the same.
pub(crate) fn link_table(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["LINK", "CLUSTER", "STATE", "TRANSPORT", "RTT", "IMPORTED", "EXPORTED"];
    if wide {
        columns.extend(["TRUST DOMAIN", "DIALS", "ADDRESSES", "REASON", "MESSAGE"]);
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells: Vec<String> =
            ["name", "cluster", "state", "transport"].map(|field| cell(&row[field])).into();
        cells.push(micros(&row["rttMicros"]));
        let more =
            ["imported", "exported", "trustDomain", "dial", "addresses", "reason", "message"];
        cells.extend(more.map(|field| cell(&row[field])));
        table.row(cells);
    }
    table
}

fn imports(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["SERVICE", "TYPE", "PORTS", "CLUSTERS"];
    if wide {
        columns.push("ADDRESSES");
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = vec![full_name(row)];
        cells.extend(["type", "ports", "clusters", "addresses"].map(|field| cell(&row[field])));
        table.row(cells);
    }
    table
}

fn exports(rows: &[Value], _wide: bool) -> Table {
    let mut table = Table::new(&["SERVICE", "VALID", "PROBLEMS"]);
    for row in rows {
        table.row([full_name(row), cell(&row["valid"]), cell(&row["problems"])]);
    }
    table
}

fn full_name(row: &Value) -> String {
    format!("{}/{}", cell(&row["namespace"]), cell(&row["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_show_what_the_api_server_has() {
        let status = json!({
            "cluster": "east", "clusterset": "demo", "trustDomain": "east.demo", "version": "1.2.3",
            "leader": "pod-1", "addresses": ["192.0.2.1:15443"], "routes": {"HTTPRoute": 3},
            "deployments": [{"namespace": "isthmus-system", "name": "isthmus-dns", "wanted": 2, "ready": 1}],
            "gateways": [{"namespace": "infra", "name": "web", "class": "isthmus",
                "addresses": ["192.0.2.2"], "programmed": "True", "attachedRoutes": 3, "pods": "2/2"}],
            "links": [{"name": "west", "cluster": "west", "state": "connected", "transport": "quic",
                "rttMicros": 40_250, "imported": 2, "exported": 1}],
            "imports": [{"namespace": "shop", "name": "cart", "type": "ClusterSetIP", "ports": [80], "clusters": ["west"]}],
            "exports": [], "problems": 2,
        });
        let want = "\
Cluster       east
Clusterset    demo
Trust domain  east.demo
Version       1.2.3
Leader        pod-1
Address       192.0.2.1:15443
Routes        3 HTTPRoute

Deployments
DEPLOYMENT                  READY
isthmus-system/isthmus-dns  1/2

Gateways
GATEWAY    CLASS    ADDRESS    PROGRAMMED  ROUTES  PODS
infra/web  isthmus  192.0.2.2  True        3       2/2

Links
LINK  CLUSTER  STATE      TRANSPORT  RTT      IMPORTED  EXPORTED
west  west     connected  quic       40.2 ms  2         1

Imports
SERVICE    TYPE          PORTS  CLUSTERS
shop/cart  ClusterSetIP  80     west

2 problems: `isthmus check` names them
";
        assert_eq!(text(&status, Paint { on: false }, false), want);
        text(&status, Paint { on: true }, true);
    }
}
