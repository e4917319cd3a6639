//! `isthmus explain`: the steps of a decision, as the running cluster takes it.

use std::process::ExitCode;

use serde_json::Value;

use super::admin::{Admin, encode};
use super::output::{self, Paint};
use super::table::{Table, cell};
use crate::args::{ExplainArgs, INGRESS};
use crate::settings::Settings;

/// Asks the running cluster and prints its answer.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let file = &args.query.file.file;
    let settings = Settings::load(file)?;
    let answer = Admin::new(&settings, file).get(&path(args, &settings)?)?;
    output::show(&answer, args.query.output.output, |paint, _| text(&answer, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn path(args: &ExplainArgs, settings: &Settings) -> anyhow::Result<String> {
    let from = if args.from == INGRESS {
        INGRESS.to_owned()
    } else {
        settings.sidecar(&args.from)?.full_name()
    };
    let mut path = format!(
        "/explain?url={}&from={}&method={}",
        encode(&args.url),
        encode(&from),
        encode(args.method.as_str())
    );
    if !args.header.is_empty() {
        // A parameter has one value, and no header has a line end.
        path.push_str(&format!("&header={}", encode(&args.header.join("\n"))));
    }
    Ok(path)
}

fn text(answer: &Value, paint: Paint) -> String {
    let mut table = Table::new(&["STAGE", "OBJECT", "OUTCOME"]);
    for step in answer["steps"].as_array().into_iter().flatten() {
        table.row(["stage", "object", "outcome"].map(|name| cell(&step[name])));
    }
    let mut text = table.render(paint);
    text.push('\n');
    text.push_str(&outcome(&answer["result"], paint));
    text
}

/// Where the request ends: with an answer of the proxy's own, or at one of the endpoints.
fn outcome(result: &Value, paint: Paint) -> String {
    let mut text = String::new();
    let mut add = |line: String| text.push_str(&format!("=> {line}\n"));
    let (status, detail) = (result["status"].as_u64(), cell(&result["detail"]));
    let detail = output::clean(&if detail.is_empty() { cell(&result["flag"]) } else { detail });
    match status {
        None => {}
        // No part of the proxy was there to give an answer.
        Some(0) => add(paint.bad(&detail)),
        Some(status) => {
            let line = format!("answered with {status}: {detail}");
            let line = line.trim_end_matches([':', ' ']);
            add(if status >= 400 { paint.bad(line) } else { line.to_owned() });
        }
    }
    for endpoint in result["endpoints"].as_array().into_iter().flatten() {
        let cluster = cell(&endpoint["cluster"]);
        let locality = ["region", "zone"].map(|name| cell(&endpoint["locality"][name]));
        let place = if locality.concat().is_empty() { String::new() } else { locality.join("/") };
        let mut line = format!("endpoint {} in ", cell(&endpoint["id"]));
        line.push_str(if cluster.is_empty() { "this cluster" } else { &cluster });
        for (word, value) in [(",", place), (", as", cell(&endpoint["identity"]))] {
            if !value.is_empty() {
                line.push_str(&format!("{word} {value}"));
            }
        }
        add(output::clean(&line));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use isthmus_telemetry::AdminRoutes;
    use serde_json::json;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::commands::admin::tests::Rig;

    fn args(rig: &Rig, more: &[&str]) -> ExplainArgs {
        let file = rig.file.display().to_string();
        let fixed = ["isthmus", "explain", "-f", &file, "-o", "json"];
        let all = fixed.into_iter().chain(more.iter().copied());
        let command = Cli::try_parse_from(all).unwrap().command;
        let Command::Explain(args) = command else { panic!("{command:?}") };
        args
    }

    #[test]
    fn the_question_reaches_the_cluster_whole() {
        let routes = AdminRoutes::new();
        routes.get("/explain", |query| {
            assert_eq!(query.value("url"), Some("http://cart.test/a?b=c&d=%20"));
            assert_eq!(query.value("from"), Some("shop/web"));
            assert_eq!(query.value("method"), Some("POST"));
            assert_eq!(query.value("header"), Some("x-a: 1 + 1\nx-b: é&"));
            Ok(json!({"steps": [], "result": {"status": 404}}))
        });
        let rig = Rig::new(&routes);
        let more = [
            "http://cart.test/a?b=c&d=%20",
            "--from",
            "web",
            "-X",
            "POST",
            "-H",
            "x-a: 1 + 1",
            "-H",
            "x-b:é&",
        ];
        assert_eq!(run(&args(&rig, &more)).unwrap(), ExitCode::SUCCESS);
    }

    #[test]
    fn an_unknown_workload_is_refused_with_those_that_exist() {
        let rig = Rig::new(&AdminRoutes::new());
        let error = run(&args(&rig, &["http://a/", "--from", "nobody"])).unwrap_err().to_string();
        assert_eq!(error, "the settings have no sidecar \"nobody\"; they have shop/web");
    }

    #[test]
    fn steps_result_and_endpoints_are_shown() {
        let answer = json!({
            "steps": [{"stage": "route", "object": "HTTPRoute shop/r", "outcome": "rule 0"}],
            "result": {
                "service": "cart.shop.svc.clusterset.local", "port": 80, "status": null,
                "endpoints": [
                    {"id": "e1", "cluster": null, "locality": {"region": "r", "zone": "z"}, "identity": "spiffe://a/b"},
                    {"id": "e2", "cluster": "b", "locality": {"region": "", "zone": ""}},
                ],
            },
        });
        let want = "\
STAGE  OBJECT            OUTCOME
route  HTTPRoute shop/r  rule 0

=> endpoint e1 in this cluster, r/z, as spiffe://a/b
=> endpoint e2 in b
";
        assert_eq!(text(&answer, Paint { on: false }), want);
        let refused = |result| outcome(&result, Paint { on: false });
        let result = json!({"status": 404, "flag": "NR", "detail": "no route"});
        assert_eq!(refused(result), "=> answered with 404: no route\n");
        assert_eq!(refused(json!({"status": 302})), "=> answered with 302\n");
        let result = json!({"status": 0, "detail": "no Gateway listens on port 81"});
        assert_eq!(refused(result), "=> no Gateway listens on port 81\n");
        assert_eq!(refused(json!(null)), "");
    }
}
