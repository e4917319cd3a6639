//! The pure cores stay pure.
//!
//! A protocol or a decision that takes time, randomness and input as parameters can be
//! tested by simulation and explained by running it again. One socket or one look at the
//! clock ends that, so the pure places are listed here and held to it. Their tests may use
//! what they like.

use crate::problem::Problem;
use crate::repository::Repository;
use crate::source::{self, Part};

/// Pure beside every `proto.rs` and `proto/` in a crate's `src`. Module paths without
/// `.rs`: the file and its folder are both meant.
const PURE: &[&str] = &[
    "config/src/translate",
    "config/src/validate",
    "core/discovery/src/publisher",
    "core/discovery/src/subscriber",
    "core/model/src",
    "dns/src/answer",
    "federation/src/mcs",
    "federation/src/plan",
];

/// What a pure file must not mention, and what it is.
const IMPURE: &[(&str, &str)] = &[
    (".await", "asynchronous code"),
    ("Instant::now", "the clock"),
    ("SystemTime::now", "the clock"),
    ("TcpListener", "a socket"),
    ("TcpStream", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixListener", "a socket"),
    ("UnixStream", "a socket"),
    ("async fn", "asynchronous code"),
    ("isthmus_runtime::clock", "the clock"),
    ("rand", "randomness"),
    ("std::fs", "a file"),
    ("tokio", "a runtime"),
];

pub(crate) fn check(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.rust() {
        if !is_pure(path) || repository.is_test(path) {
            continue;
        }
        for line in source::lines(text).iter().filter(|line| line.part == Part::Code) {
            for (needle, what) in IMPURE {
                if source::mentions(line.text, needle) {
                    let message = format!("`{needle}` is {what}: this module is pure");
                    problems.push(Problem::new(path, line.number, message));
                }
            }
        }
    }
    problems
}

fn is_pure(path: &str) -> bool {
    let in_proto = path.split_once("src/").is_some_and(|(_, module)| {
        module.split('/').any(|part| part == "proto" || part == "proto.rs")
    });
    in_proto
        || PURE.iter().any(|module| {
            path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_a_socket_or_the_clock_in_a_pure_file_is_found() {
        for line in [
            "use tokio::net::TcpListener;",
            "use std::net::UdpSocket;",
            "let now = Instant::now();",
            "let now = std::time::SystemTime::now();",
        ] {
            for path in
                ["core/link/src/proto/session.rs", "core/model/src/route.rs", "a/src/proto.rs"]
            {
                assert_ne!(check(&Repository::of(&[(path, line)])), [], "{path}: {line}");
            }
        }
    }

    #[test]
    fn comments_tests_and_shells_may() {
        let repository = Repository::of(&[
            ("core/link/src/proto/a.rs", "//! No tokio.\nuse std::time::Instant;\n"),
            ("core/link/src/proto/tests.rs", "let now = Instant::now();\n"),
            ("core/model/src/x.rs", "#[cfg(test)]\nmod tests {\n    Instant::now();\n}\n"),
            ("core/link/src/task.rs", "use tokio::net::UdpSocket;\n"),
            ("core/link/src/protocol.rs", "use tokio::net::UdpSocket;\n"),
        ]);
        assert_eq!(check(&repository), []);
    }
}
