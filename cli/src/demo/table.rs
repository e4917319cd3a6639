//! Plain tables of text. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::step::Step;
use super::story::State;
use super::tally::Tally;

/// The table of steps.
pub(crate) fn steps(steps: &[Step], states: &[State]) -> String {
    let mut rows = vec![
        ["STEP", "RESULT", "AFTER", "REQUESTS", "FAILED", "ALLOWED", "SERVED BY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut notes = String::new();
    for (index, (step, state)) in steps.iter().zip(states).enumerate() {
        let name = format!("{}. {}", index + 1, step.title);
        let allowed = step.failures_max.map_or_else(|| "any".to_owned(), |max| max.to_string());
        rows.push(match state {
            State::Done(verdict) => {
                for unmet in &verdict.unmet {
                    notes.push_str(&format!("step {}: {unmet}\n", index + 1));
                }
                let tally = &verdict.tally;
                let requests = tally.served_total() + tally.failed_total();
                vec![
                    name,
                    if verdict.passed { "ok" } else { "MISSED" }.to_owned(),
                    duration(verdict.took),
                    requests.to_string(),
                    failed(tally),
                    allowed,
                    counts(&tally.served),
                ]
            }
            State::Running { .. } | State::Waiting => {
                let dash = || "-".to_owned();
                vec![name, "not done".to_owned(), dash(), dash(), dash(), allowed, dash()]
            }
        });
    }
    format!("{}{notes}", columns(&rows))
}

/// The table of routes.
pub(crate) fn routes(total: &BTreeMap<String, Tally>) -> String {
    let head = ["ROUTE", "REQUESTS", "FAILED", "SLOWEST", "SERVED BY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (route, tally) in total {
        rows.push(vec![
            route.clone(),
            (tally.served_total() + tally.failed_total()).to_string(),
            failed(tally),
            duration(tally.slowest),
            counts(&tally.served),
        ]);
    }
    columns(&rows)
}

/// `3 (2 503, 1 timeout)`.
fn failed(tally: &Tally) -> String {
    match tally.failed_total() {
        0 => "0".to_owned(),
        total => format!("{total} ({})", reasons(&tally.failed)),
    }
}

fn reasons(failed: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> =
        failed.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    each.join(", ")
}

/// `aws-us-east 40, onprem 20`, most first.
pub(crate) fn counts(served: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = served.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let each: Vec<String> =
        all.into_iter().map(|(cluster, count)| format!("{cluster} {count}")).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

/// `350 ms` or `4.2 s`.
pub(crate) fn duration(value: Duration) -> String {
    if value < Duration::from_secs(1) {
        format!("{} ms", value.as_millis())
    } else {
        format!("{:.1} s", value.as_secs_f64())
    }
}

fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::story::Verdict;
    use super::*;

    fn step(title: &'static str, failures_max: Option<u64>) -> Step {
        Step {
            title,
            actions: vec![],
            expect: vec![],
            within: Duration::ZERO,
            hold: Duration::ZERO,
            failures_max,
        }
    }

    #[test]
    fn the_table_shows_what_was_missed() {
        let tally = Tally {
            served: BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 7)]),
            failed: BTreeMap::from([("503".to_owned(), 1)]),
            slowest: Duration::from_millis(350),
        };
        let unmet = vec!["1 requests failed, allowed are 0".to_owned()];
        let took = Duration::from_millis(4230);
        let states = [State::Done(Verdict { passed: false, took, unmet, tally }), State::Waiting];
        let text = steps(&[step("kill", Some(0)), step("return", None)], &states);
        let want = "\
STEP       RESULT    AFTER  REQUESTS  FAILED     ALLOWED  SERVED BY
1. kill    MISSED    4.2 s  10        1 (1 503)  0        b 7, a 2
2. return  not done  -      -         -          any      -
step 1: 1 requests failed, allowed are 0
";
        assert_eq!(text, want);
    }

    #[test]
    fn routes_have_a_line_each() {
        let tally = Tally { slowest: Duration::from_millis(350), ..Tally::default() };
        let text = routes(&BTreeMap::from([("ingress /cart".to_owned(), tally)]));
        let want = "\
ROUTE          REQUESTS  FAILED  SLOWEST  SERVED BY
ingress /cart  0         0       350 ms   -
";
        assert_eq!(text, want);
    }
}
