//! `isthmus status`: tables of what the running cluster says of itself.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{admin, table};
use crate::args::{FileArgs, load};

/// Arguments of `isthmus status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Table,
    Wide,
    Yaml,
}

/// Prints the status.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.file)?;
    let status = admin::get(&settings, "/status")?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Yaml => print!("{}", serde_saphyr::to_string(&status)?),
        Output::Table => tables(&status, false),
        Output::Wide => tables(&status, true),
    }
    Ok(ExitCode::SUCCESS)
}

fn tables(status: &Value, wide: bool) {
    println!(
        "cluster {} of {} ({}/{}), generation {}, trust domain {}",
        text(&status["cluster"]),
        text(&status["clusterset"]),
        text(&status["region"]),
        text(&status["zone"]),
        text(&status["generation"]),
        text(&status["trustDomain"])
    );
    let listener = |row: &Value| {
        let names = join(&row["listeners"]);
        let state = row["error"].as_str().unwrap_or("listening").to_owned();
        vec![text(&row["address"]), text(&row["protocol"]), names, state]
    };
    section(&["ADDRESS", "PROTOCOL", "LISTENERS", "STATE"], &status["listeners"], listener);
    let peer = |row: &Value| {
        let rtt = row["rttMicros"].as_f64().map(|rtt| format!("{:.1} ms", rtt / 1000.0));
        let loss = row["lossPermille"].as_f64().map(|loss| format!("{:.1} %", loss / 10.0));
        let mut cells = vec![
            text(&row["cluster"]),
            text(&row["state"]),
            text(&row["transport"]),
            rtt.unwrap_or_else(|| "-".into()),
            loss.unwrap_or_else(|| "-".into()),
            text(&row["lease"]),
            text(&row["importedServices"]),
            text(&row["exportedServices"]),
        ];
        if wide {
            cells.push(text(&row["lastError"]));
        }
        cells
    };
    let mut header =
        vec!["PEER", "LINK", "TRANSPORT", "RTT", "LOSS", "LEASE", "IMPORTED", "EXPORTED"];
    if wide {
        header.push("LAST ERROR");
    }
    section(&header, &status["peers"], peer);
    let service = |row: &Value| {
        let endpoints = row["endpoints"].as_array().map_or(0, Vec::len);
        vec![text(&row["host"]), join(&row["ports"]), endpoints.to_string(), join(&row["clusters"])]
    };
    section(&["SERVICE", "PORTS", "ENDPOINTS", "CLUSTERS"], &status["services"], service);
    if wide {
        wide_tables(status);
    }
    problems(status);
}

fn wide_tables(status: &Value) {
    let certificate = |row: &Value| {
        let left = text(&row["secondsLeft"]);
        vec![text(&row["identity"]), text(&row["standing"]), left, text(&row["renewals"])]
    };
    let header = ["CERTIFICATE", "STANDING", "SECONDS LEFT", "RENEWALS"];
    section(&header, &status["certificates"], certificate);
    let subscriber = |row: &Value| {
        let names = text(&row["names"]);
        vec![text(&row["node"]), text(&row["role"]), text(&row["generation"]), names]
    };
    section(&["NODE", "ROLE", "GENERATION", "NAMES"], &status["subscribers"], subscriber);
}

fn problems(status: &Value) {
    let errors = status["configErrors"].as_array().into_iter().flatten();
    for error in errors {
        println!(
            "error: {} document {}: {} {}: {}",
            text(&error["file"]),
            text(&error["document"]),
            text(&error["object"]),
            text(&error["field"]),
            text(&error["reason"])
        );
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        println!("error: {}", text(condition));
    }
}

fn section(header: &[&str], rows: &Value, cells: impl Fn(&Value) -> Vec<String>) {
    let rows: Vec<Vec<String>> = rows.as_array().into_iter().flatten().map(cells).collect();
    if !rows.is_empty() {
        println!();
        table::print(header, &rows);
    }
}

/// A value as a cell; nothing is `-`.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        other @ (Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

fn join(value: &Value) -> String {
    let items: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
    if items.is_empty() { "-".into() } else { items.join(",") }
}
