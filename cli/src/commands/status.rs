//! `isthmus status`: the state of a running cluster, by its admin endpoint. [`cluster`]
//! asks an API server instead.
//!
//! The answer is shown as it comes: what an older or newer process does not say is shown
//! as `-`.

pub(crate) mod cluster;

use std::process::ExitCode;

use serde_json::Value;

use super::admin::Admin;
use super::output::{self, Paint};
use super::table::{Table, cell};
use crate::args::QueryArgs;
use crate::settings::Settings;

/// Asks the running cluster and prints its answer.
pub(crate) fn run(args: &QueryArgs) -> anyhow::Result<ExitCode> {
    let file = &args.file.file;
    let settings = Settings::load(file)?;
    let status = Admin::new(&settings, file).get("/status")?;
    if status["cluster"] != settings.cluster.as_str() {
        let (other, own) = (cell(&status["cluster"]), &settings.cluster);
        let admin = settings.telemetry.admin;
        anyhow::bail!("{admin} is the admin endpoint of cluster {other}, not of {own}");
    }
    output::show(&status, args.output.output, |paint, wide| text(&status, paint, wide))?;
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value, paint: Paint, wide: bool) -> String {
    let mut text = summary(status, paint);
    let sections: [Section; 5] = [
        ("peers", "Links", peers),
        ("services", "Services", services),
        ("listeners", "Listeners", listeners),
        ("certificates", "Certificates", certificates),
        ("subscribers", "Subscribers", subscribers),
    ];
    for (name, title, table) in sections {
        // Who subscribes is only of interest to those who look closely.
        if name == "subscribers" && !wide {
            continue;
        }
        if let Some(rows) = status[name].as_array().filter(|rows| !rows.is_empty()) {
            text.push_str(&format!("\n{}\n", paint.head(title)));
            text.push_str(&table(rows, wide).render(paint));
        }
    }
    text.push_str(&problems(status, paint));
    text
}

/// The name of a list in the answer, its heading, and how its rows are shown.
type Section = (&'static str, &'static str, fn(&[Value], bool) -> Table);

fn summary(status: &Value, paint: Paint) -> String {
    let lines = [
        ("Cluster", cell(&status["cluster"])),
        ("Clusterset", cell(&status["clusterset"])),
        ("Trust domain", cell(&status["trustDomain"])),
        ("Locality", locality(status)),
        ("Version", cell(&status["version"])),
        ("Generation", cell(&status["generation"])),
        ("Roles", status["roles"].as_array().map(|roles| list(roles)).unwrap_or_default()),
    ];
    summary_lines(&lines, paint)
}

/// Lines of a title and a value each; one without a value is left out.
fn summary_lines(lines: &[(&str, String)], paint: Paint) -> String {
    let mut text = String::new();
    for (title, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let title = format!("{title:<14}");
        text.push_str(&format!("{}{}\n", paint.head(&title), output::clean(value)));
    }
    text
}

fn locality(status: &Value) -> String {
    let parts = [cell(&status["region"]), cell(&status["zone"])];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

fn list(items: &[Value]) -> String {
    items.iter().map(cell).collect::<Vec<_>>().join(", ")
}

fn peers(rows: &[Value], wide: bool) -> Table {
    let mut columns =
        vec!["CLUSTER", "STATE", "TRANSPORT", "RTT", "LOSS", "LEASE", "IMPORTED", "EXPORTED"];
    if wide {
        columns.extend(["SINCE", "ADDRESS", "STREAMS", "BUNDLE", "CHANGES", "LAST ERROR"]);
    }
    let mut table = Table::new(&columns);
    for peer in rows {
        let mut row = vec![
            cell(&peer["cluster"]),
            cell(&peer["state"]),
            cell(&peer["transport"]),
            micros(&peer["rttMicros"]),
            permille(&peer["lossPermille"]),
            cell(&peer["lease"]),
            cell(&peer["importedServices"]),
            cell(&peer["exportedServices"]),
        ];
        if wide {
            let since = seconds(&peer["sinceSeconds"]);
            row.extend([
                if since.is_empty() { cell(&peer["since"]) } else { since },
                cell(&peer["address"]),
                cell(&peer["streams"]),
                cell(&peer["bundleSequence"]),
                cell(&peer["changes"]),
                cell(&peer["lastError"]),
            ]);
        }
        table.row(row);
    }
    table
}

fn services(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["SERVICE", "PORTS", "ENDPOINTS", "CLUSTERS"];
    if wide {
        columns.push("ADDRESSES");
    }
    let mut table = Table::new(&columns);
    for service in rows {
        let endpoints = &service["endpoints"];
        let mut row = vec![
            cell(&service["host"]),
            cell(&service["ports"]),
            endpoints.as_array().map_or_else(|| cell(endpoints), |all| ready(all)),
            cell(&service["clusters"]),
        ];
        if wide {
            row.push(cell(&service["addresses"]));
        }
        table.row(row);
    }
    table
}

/// `2/3`: two of three endpoints take requests.
fn ready(endpoints: &[Value]) -> String {
    let is_ready = |endpoint: &&Value| endpoint["health"].as_str().is_none_or(|it| it == "ready");
    format!("{}/{}", endpoints.iter().filter(is_ready).count(), endpoints.len())
}

fn listeners(rows: &[Value], _wide: bool) -> Table {
    let mut table = Table::new(&["ADDRESS", "PROTOCOL", "LISTENERS", "ERROR"]);
    for row in rows {
        table.row(["address", "protocol", "listeners", "error"].map(|name| cell(&row[name])));
    }
    table
}

fn certificates(rows: &[Value], wide: bool) -> Table {
    let mut columns = vec!["IDENTITY", "STANDING", "VALID FOR"];
    if wide {
        columns.extend(["RENEWALS", "FAILURES"]);
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let left = seconds(&row["secondsLeft"]);
        table.row([
            cell(&row["identity"]),
            cell(&row["standing"]),
            if left.is_empty() { cell(&row["notAfter"]) } else { left },
            cell(&row["renewals"]),
            cell(&row["failures"]),
        ]);
    }
    table
}

fn subscribers(rows: &[Value], _wide: bool) -> Table {
    let mut table = Table::new(&["NODE", "ROLE", "GENERATION", "NAMES", "REFUSED"]);
    for row in rows {
        let names = &row["names"];
        table.row([
            cell(&row["node"]),
            cell(&row["role"]),
            cell(&row["generation"]),
            names.as_array().map_or_else(|| cell(names), |names| names.len().to_string()),
            cell(&row["nacks"]),
        ]);
    }
    table
}

/// Broken objects and conditions, one a line.
fn problems(status: &Value, paint: Paint) -> String {
    let errors = status["configErrors"].as_array().into_iter().flatten().map(config_error);
    let conditions = status["conditions"].as_array().into_iter().flatten().map(cell);
    let lines: Vec<String> = errors.chain(conditions).collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", paint.head("Problems"));
    for line in lines {
        text.push_str(&format!("{}\n", paint.bad(&output::clean(&line))));
    }
    text
}

/// `a.yaml document 2: Service shop/cart: spec.ports: is required`.
fn config_error(error: &Value) -> String {
    if !error.is_object() {
        return cell(error);
    }
    let mut place = cell(&error["file"]);
    if error["document"].as_u64().is_some_and(|document| document > 0) {
        place.push_str(&format!(" document {}", error["document"]));
    }
    let rest = ["object", "field", "reason"].map(|name| cell(&error[name]));
    let parts = std::iter::once(place).chain(rest).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(": ")
}

fn micros(value: &Value) -> String {
    let Some(micros) = value.as_f64() else { return String::new() };
    if micros < 1000.0 { format!("{micros:.0} us") } else { format!("{:.1} ms", micros / 1000.0) }
}

fn permille(value: &Value) -> String {
    value.as_f64().map(|permille| format!("{:.1}%", permille / 10.0)).unwrap_or_default()
}

/// The two largest units of a time: `2d3h`, `5m10s`.
fn seconds(value: &Value) -> String {
    let Some(mut rest) = value.as_u64() else { return String::new() };
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= length || (unit == "s" && parts.is_empty()) {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    parts.truncate(2);
    parts.concat()
}

#[cfg(test)]
mod tests {
    use isthmus_model::Health;
    use isthmus_telemetry::AdminRoutes;
    use serde_json::json;

    use super::*;
    use crate::args::{FileArgs, Output, OutputArgs};
    use crate::commands::admin::tests::Rig;

    fn status() -> Value {
        json!({
            "cluster": "a", "clusterset": "demo", "region": "r", "zone": "", "version": "0.0.0",
            "generation": 7, "roles": ["ca", "sidecar shop/web"],
            "peers": [
                {"cluster": "b", "state": "up", "transport": "quic", "rttMicros": 40_250, "lossPermille": 5.0,
                 "lease": "valid", "importedServices": 2, "exportedServices": 1, "sinceSeconds": 3700,
                 "changes": {"dead": 1}, "lastError": "no\u{1b}[2J"},
                {"cluster": "c"},
            ],
            "services": [{"host": "cart.shop.svc.clusterset.local", "ports": [80, 81], "clusters": ["a", "b"],
                "endpoints": [{"health": Health::Ready}, {"health": Health::NotReady}]}],
            "certificates": [{"identity": "spiffe://a.demo/ns/shop/sa/web", "standing": "fresh", "secondsLeft": 3599}],
            "configErrors": [{"file": "a.yaml", "document": 2, "object": "Service shop/x", "field": "spec.ports", "reason": "is required"}],
            "conditions": ["Gateway shop/g: Accepted is false"],
        })
    }

    #[test]
    fn tables_show_what_the_cluster_says() {
        let want = "\
Cluster       a
Clusterset    demo
Locality      r
Version       0.0.0
Generation    7
Roles         ca, sidecar shop/web

Links
CLUSTER  STATE  TRANSPORT  RTT      LOSS  LEASE  IMPORTED  EXPORTED
b        up     quic       40.2 ms  0.5%  valid  2         1
c        -      -          -        -     -      -         -

Services
SERVICE                         PORTS  ENDPOINTS  CLUSTERS
cart.shop.svc.clusterset.local  80,81  1/2        a,b

Certificates
IDENTITY                        STANDING  VALID FOR
spiffe://a.demo/ns/shop/sa/web  fresh     59m59s

Problems
a.yaml document 2: Service shop/x: spec.ports: is required
Gateway shop/g: Accepted is false
";
        assert_eq!(text(&status(), Paint { on: false }, false), want);
    }

    #[test]
    fn wide_tables_show_more_and_never_raw_control_characters() {
        let text = text(&status(), Paint { on: false }, true);
        assert!(text.contains("1h1m") && text.contains("dead=1"), "{text}");
        assert!(text.contains("no\u{fffd}[2J") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn whatever_the_answer_is_it_can_be_shown() {
        for odd in [
            json!(null),
            json!([]),
            json!({"peers": 3, "services": [null, 1, "x"]}),
            json!({"peers": [[]]}),
        ] {
            text(&odd, Paint { on: true }, true);
        }
        assert_eq!(seconds(&json!(0)), "0s");
        assert_eq!(seconds(&json!(183_600)), "2d3h");
        assert_eq!(micros(&json!(420)), "420 us");
    }

    #[test]
    fn another_cluster_at_the_address_is_an_error() {
        let routes = AdminRoutes::new();
        routes.get("/status", |_| Ok(json!({"cluster": "b"})));
        let rig = Rig::new(&routes);
        let args = QueryArgs {
            file: FileArgs { file: rig.file.as_path().into() },
            output: OutputArgs { output: Output::Json },
        };
        let error = run(&args).unwrap_err().to_string();
        assert!(error.ends_with("is the admin endpoint of cluster b, not of a"), "{error}");
        routes.get("/status", |_| Ok(json!({"cluster": "a"})));
        run(&args).unwrap();
    }
}
