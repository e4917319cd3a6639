//! The stub domain in the Corefile of the cluster's CoreDNS: a pure edit.
//!
//! The block stands between two comments, at the beginning, so that everything else stays
//! byte for byte and taking the block away gives back what was there. A Corefile that
//! serves `clusterset.local` already, without our comments, belongs to somebody who has
//! to decide; it is refused.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Why a Corefile is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorefileError {
    /// One of the two comments is missing, or they are in the wrong order.
    #[error(
        "the Corefile has one of the lines {BEGIN:?} and {END:?} without the other: take both \
         and what is between them out by hand"
    )]
    Broken,
    /// Without braces there can be only one server.
    #[error("the Corefile has a single server without braces: put braces around it")]
    NoBraces,
    /// Somebody else serves the zone.
    #[error(
        "line {line} of the Corefile names {ZONE} already: take it out, or install with --no-dns"
    )]
    Taken {
        /// The line, from 1.
        line: usize,
    },
}

/// The Corefile with the block that sends the zone to `server`.
///
/// # Errors
///
/// [`CorefileError`] says what has to be settled by hand first.
pub(crate) fn with_block(corefile: &str, server: IpAddr) -> Result<String, CorefileError> {
    let rest = without_block(corefile)?;
    check(&rest)?;
    Ok(format!(
        "{BEGIN}\n{ZONE}:53 {{\n    errors\n    cache 30\n    forward . {server}\n}}\n{END}\n{rest}"
    ))
}

/// The Corefile without the block.
///
/// # Errors
///
/// [`CorefileError::Broken`] when one of the two comments is missing.
pub(crate) fn without_block(corefile: &str) -> Result<String, CorefileError> {
    let mut rest = String::with_capacity(corefile.len());
    let mut is_inside = false;
    for line in corefile.split_inclusive('\n') {
        match (line.trim_end(), is_inside) {
            (BEGIN, false) => is_inside = true,
            (END, true) => is_inside = false,
            (BEGIN | END, _) => return Err(CorefileError::Broken),
            (_, false) => rest.push_str(line),
            (_, true) => {}
        }
    }
    if is_inside { Err(CorefileError::Broken) } else { Ok(rest) }
}

/// Whether CoreDNS reads an edited Corefile by itself.
pub(crate) fn reloads(corefile: &str) -> bool {
    statements(corefile).any(|(_, words)| words.first() == Some(&"reload"))
}

/// What an edit changes, as lines with `-` and `+` and some of those around.
pub(crate) fn diff(before: &str, after: &str) -> String {
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(old, new)| old == new).count()
    };
    let head = same(&mut old.iter().zip(&new));
    let most = old.len().min(new.len()) - head;
    let tail = same(&mut old.iter().rev().zip(new.iter().rev())).min(most);
    let mut text = String::new();
    let mut line = |mark: char, content: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mark}{content}");
    };
    old[head.saturating_sub(CONTEXT)..head].iter().for_each(|content| line(' ', content));
    old[head..old.len() - tail].iter().for_each(|content| line('-', content));
    new[head..new.len() - tail].iter().for_each(|content| line('+', content));
    let after = &new[new.len() - tail..];
    after.iter().take(CONTEXT).for_each(|content| line(' ', content));
    text
}

fn check(corefile: &str) -> Result<(), CorefileError> {
    for (line, words) in statements(corefile) {
        if words.iter().any(|word| names_zone(word)) {
            return Err(CorefileError::Taken { line });
        }
    }
    let mut statements = statements(corefile).map(|(_, words)| words);
    let Some(first) = statements.next() else { return Ok(()) };
    let opens = |words: &[&str]| words.last().is_some_and(|word| word.ends_with('{'));
    // A list of zones may go on over lines that end with a comma.
    let goes_on = first.last().is_some_and(|word| word.ends_with(','));
    let is_good = opens(&first) || goes_on || first[0] == "import";
    if is_good { Ok(()) } else { Err(CorefileError::NoBraces) }
}

/// The words of each line that has any, without comments, and the line's number.
fn statements(corefile: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = corefile.lines().enumerate();
    let words = lines.map(|(index, line)| {
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        (index + 1, words)
    });
    words.filter(|(_, words): &(usize, Vec<&str>)| !words.is_empty())
}

/// Whether a word is the zone, with or without a scheme, a port and a final dot.
fn names_zone(word: &str) -> bool {
    let word = word.split_once("://").map_or(word, |(_, rest)| rest);
    let word = word.trim_end_matches(['{', ',']);
    let word = word.split_once(':').map_or(word, |(zone, _)| zone);
    word.trim_end_matches('.').eq_ignore_ascii_case(ZONE)
}

/// The domain of imported services.
///
/// Spec: KEP-1645 "DNS".
pub(crate) const ZONE: &str = "clusterset.local";
const BEGIN: &str = "# isthmus begin: clusterset.local (isthmus uninstall takes this block away)";
const END: &str = "# isthmus end";
/// Lines that a diff shows around what has changed.
const CONTEXT: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = ".:53 {\n    errors\n    kubernetes cluster.local in-addr.arpa {\n        \
                         ttl 30\n    }\n    forward . /etc/resolv.conf\n    reload\n}\n";

    fn server(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_block_comes_and_goes_and_everything_else_stays() {
        let odd = ["", USUAL, ".:53 {\r\n\terrors\r\n}", "\n\n# note\n.:53 {\n}\n\n\n"];
        for before in odd {
            let after = with_block(before, server("10.0.0.1")).unwrap();
            assert!(after.ends_with(before), "{before:?}");
            assert!(after.contains("clusterset.local:53 {\n"), "{after}");
            assert_eq!(without_block(&after).unwrap(), before);
        }
    }

    #[test]
    fn a_second_edit_changes_nothing_but_the_address() {
        let once = with_block(USUAL, server("10.0.0.1")).unwrap();
        assert_eq!(with_block(&once, server("10.0.0.1")).unwrap(), once);
        let moved = with_block(&once, server("fd00::1")).unwrap();
        assert_eq!(moved, once.replace("10.0.0.1", "fd00::1"));
        assert_eq!(without_block(USUAL).unwrap(), USUAL);
    }

    #[test]
    fn a_block_that_was_moved_is_found() {
        let once = with_block("", server("10.0.0.1")).unwrap();
        let moved = format!("{USUAL}{once}# after\n");
        assert_eq!(without_block(&moved).unwrap(), format!("{USUAL}# after\n"));
    }

    #[test]
    fn a_zone_of_somebody_else_is_refused_with_its_line() {
        for text in [
            "clusterset.local {\n forward . 1.1.1.1\n}\n",
            "\n.:53, dns://clusterset.local.:53 {\n}\n",
            ".:53 {\n  multicluster ClusterSet.local\n}\n",
        ] {
            let error = with_block(text, server("10.0.0.1")).unwrap_err();
            assert!(matches!(error, CorefileError::Taken { .. }), "{text:?}: {error}");
        }
        let line = with_block("# clusterset.local\n\nclusterset.local:53 {\n}\n", server("::1"));
        assert_eq!(line.unwrap_err(), CorefileError::Taken { line: 3 });
        for text in ["# clusterset.local\n.:53 {\n}\n", "a.clusterset.local {\n}\n"] {
            assert!(with_block(text, server("10.0.0.1")).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn half_a_block_and_a_file_without_braces_are_refused() {
        for text in [format!("{BEGIN}\n"), format!("{END}\n"), format!("{BEGIN}\n{BEGIN}\n{END}")] {
            assert_eq!(without_block(&text), Err(CorefileError::Broken), "{text:?}");
        }
        let bare = ".:53\nerrors\n";
        assert_eq!(with_block(bare, server("::1")), Err(CorefileError::NoBraces));
        let listed = "a.test,\nb.test {\n}\n";
        assert!(with_block(listed, server("::1")).is_ok());
    }

    #[test]
    fn a_diff_shows_what_changes_and_a_little_around() {
        let after = with_block(USUAL, server("10.0.0.1")).unwrap();
        let shown = diff(USUAL, &after);
        assert!(shown.contains("+    forward . 10.0.0.1\n"), "{shown}");
        assert!(
            shown.ends_with(" .:53 {\n     errors\n     kubernetes cluster.local in-addr.arpa {\n")
        );
        let moved = after.replace("10.0.0.1", "10.0.0.2");
        let shown = diff(&after, &moved);
        assert!(shown.contains("-    forward . 10.0.0.1\n+    forward . 10.0.0.2\n"), "{shown}");
        assert_eq!(diff(USUAL, "").lines().filter(|line| line.starts_with('-')).count(), 8);
    }

    #[test]
    fn whether_an_edit_is_read_is_known() {
        assert!(reloads(USUAL));
        assert!(!reloads(".:53 {\n  # reload\n}\n"));
    }
}
