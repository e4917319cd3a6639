//! `isthmus check --context`: one line for each thing that is wrong with a cluster.

use std::process::ExitCode;

use isthmus_kubernetes::inspect::inspect;
use isthmus_kubernetes::inspect::judge::{Finding, Weight, judge};
use isthmus_runtime::clock;
use serde_json::{Value, json};

use crate::args::Output;
use crate::commands::install::args::AccessArgs;
use crate::commands::output::{self, Paint};
use crate::commands::reach::{block_on, reach};

/// Reads the cluster and prints what is wrong with it; fails if something is.
pub(crate) fn run(access: &AccessArgs, form: Output) -> anyhow::Result<ExitCode> {
    let inspection = block_on(async {
        let connection = reach(access).await?;
        Ok(inspect(&connection.client, clock::wall()).await)
    })?;
    let findings = judge(&inspection);
    output::show(&to_json(&findings), form, |paint, _| text(&findings, paint))?;
    Ok(if problems(&findings) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn problems(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.weight == Weight::Problem).count()
}

fn to_json(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "weight": word(finding.weight),
            "object": finding.object,
            "problem": finding.problem,
            "advice": finding.advice,
        })
    };
    json!({
        "clean": problems(findings) == 0,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn text(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.weight {
            Weight::Problem => paint.bad("error:"),
            Weight::Note => paint.warn("note:"),
        };
        text.push_str(&format!("{word} {}\n", output::clean(&finding.to_string())));
    }
    let (problems, all) = (problems(findings), findings.len());
    let word = if problems == 0 { paint.good("ok:") } else { paint.bad("failed:") };
    text.push_str(&format!("{word} {problems} problems, {} notes\n", all - problems));
    text
}

fn word(weight: Weight) -> &'static str {
    match weight {
        Weight::Problem => "problem",
        Weight::Note => "note",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line_and_only_problems_fail() {
        let finding = |weight, object: &str| Finding {
            weight,
            object: object.to_owned(),
            problem: "has no\u{1b} address".to_owned(),
            advice: "see the Service".to_owned(),
        };
        let found = [finding(Weight::Problem, "Gateway infra/web"), finding(Weight::Note, "x")];
        let want = "error: Gateway infra/web: has no\u{fffd} address; see the Service\n\
            note: x: has no\u{fffd} address; see the Service\nfailed: 1 problems, 1 notes\n";
        assert_eq!(text(&found, Paint { on: false }), want);
        assert_eq!(to_json(&found)["clean"], false);
        assert_eq!(to_json(&found[1..])["clean"], true);
        assert_eq!(text(&[], Paint { on: false }), "ok: 0 problems, 0 notes\n");
    }
}
