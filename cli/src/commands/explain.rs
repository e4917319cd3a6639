//! `isthmus explain`: asks the running cluster to route a request on paper.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::admin::{self, escape};
use crate::args::{FileArgs, load};

/// Arguments of `isthmus explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The request's URL
    url: String,
    /// Who sends it: `ingress`, or a workload as `<namespace>/<name>`
    #[arg(long, default_value = "ingress", value_name = "WORKLOAD")]
    from: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header as `name: value`; may be repeated
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Text,
}

/// Prints each decision with the object that caused it.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let settings = load(&args.file)?;
    let path = format!(
        "/explain?url={}&from={}&method={}&header={}",
        escape(&args.url),
        escape(&args.from),
        escape(&args.method),
        escape(&args.header.join("\n"))
    );
    let answer = admin::get(&settings, &path)?;
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    for (number, step) in answer["steps"].as_array().into_iter().flatten().enumerate() {
        let (stage, object) = (text(step, "stage"), text(step, "object"));
        println!("{:>3}. {stage:<9} {object}", number + 1);
        println!("     {:<9} {}", "", text(step, "outcome"));
    }
    let result = &answer["result"];
    match result["status"].as_u64() {
        Some(0) | None => {}
        Some(status) => println!("=> answered with {status}: {}", text(result, "detail")),
    }
    for endpoint in result["endpoints"].as_array().into_iter().flatten() {
        let cluster = endpoint["cluster"].as_str().unwrap_or("this cluster");
        println!("=> endpoint {} in {cluster}", text(endpoint, "id"));
    }
    if result["status"].as_u64() == Some(0) {
        println!("=> {}", text(result, "detail"));
    }
    Ok(ExitCode::SUCCESS)
}
