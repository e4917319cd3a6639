//! `isthmus link join`: a ClusterLink on both sides, or on one by the other's token.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use isthmus_kubernetes::link::{Invitation, agree};
use isthmus_runtime::clock;
use serde_json::Value;

use super::args::JoinArgs;
use super::note_address;
use super::side::{Keep, Side};
use crate::commands::install::args::AccessArgs;
use crate::commands::output;
use crate::commands::reach::say;

/// Joins by two contexts or by a token.
pub(super) async fn run(args: &JoinArgs) -> anyhow::Result<()> {
    match (&args.token, args.contexts.as_slice()) {
        (Some(token), _) => by_token(args, token).await,
        (None, [a, b]) => both(args, a, b).await,
        (None, _) => bail!("give two contexts, or --token"),
    }
}

async fn both(args: &JoinArgs, a: &str, b: &str) -> anyhow::Result<()> {
    let access = |context: &str| AccessArgs {
        context: Some(context.to_owned()),
        kubeconfig: args.access.kubeconfig.clone(),
    };
    let mut sides = [Side::connect(&access(a)).await?, Side::connect(&access(b)).await?];
    let mut invitations = Vec::new();
    for side in &mut sides {
        let invitation = side.invitation().await?;
        say(&format!("{}: {invitation}, at {}", side.label, places(&invitation)))?;
        note_address(&invitation)?;
        invitations.push(invitation);
    }
    let [a, b] = invitations.as_slice() else { bail!("two clusters were to be read") };
    agree::check(a, b)?;
    // Both are prepared before either is written: what is in the way of one side must
    // not leave half a link.
    let mut links = Vec::new();
    for (side, other) in sides.iter_mut().zip([b, a]) {
        links.push(side.prepare(other, &args.options(), keep(args)).await?);
    }
    for (side, link) in sides.iter_mut().zip(&links) {
        side.apply(link).await?;
        say(&format!("{}: ClusterLink {} applied", side.label, name(link)))?;
    }
    let mut waiting: Vec<Waiting<'_>> = Vec::new();
    for (side, link) in sides.iter_mut().zip(&links) {
        waiting.push(Waiting { side, link: name(link).to_owned(), seen: String::new() });
    }
    wait(waiting, args.timeout.unwrap_or(WAIT)).await
}

async fn by_token(args: &JoinArgs, token: &str) -> anyhow::Result<()> {
    let other = Invitation::decode(&read(token)?)?;
    let mut side = Side::connect(&args.access).await?;
    let own = side.invitation().await?;
    agree::check(&own, &other)?;
    note_address(&own)?;
    note_address(&other)?;
    let link = side.prepare(&other, &args.options(), keep(args)).await?;
    side.apply(&link).await?;
    let link = name(&link).to_owned();
    say(&format!("{}: ClusterLink {link} to {other} applied", side.label))?;
    say(&format!(
        "if {other} has no ClusterLink to {} yet, its operator joins with this token:",
        own.cluster
    ))?;
    output::print(&format!("{}\n", own.encode()))?;
    let seen = String::new();
    wait(vec![Waiting { side: &mut side, link, seen }], args.timeout.unwrap_or_default()).await
}

/// The token of the command line, or of standard input.
fn read(token: &str) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token.to_owned());
    }
    let mut text = String::new();
    let input = std::io::stdin().lock();
    input.take(STDIN_BYTES_MAX).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// A side whose link is not connected yet.
struct Waiting<'s> {
    side: &'s mut Side,
    link: String,
    /// The state that was said last.
    seen: String,
}

/// Waits until every link is connected; says each change.
async fn wait(mut waiting: Vec<Waiting<'_>>, limit: Duration) -> anyhow::Result<()> {
    if limit.is_zero() {
        return Ok(());
    }
    let end = clock::now() + limit;
    loop {
        let mut open = Vec::new();
        for mut one in waiting {
            let shown = one.side.shown().await?;
            let link = shown.iter().find(|link| link["name"] == one.link.as_str());
            let (is_connected, state) = state(link);
            if state != one.seen {
                say(&format!("{}: ClusterLink {}: {state}", one.side.label, one.link))?;
                one.seen = state;
            }
            if !is_connected {
                open.push(one);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if clock::now() >= end {
            let lines: Vec<String> = open
                .iter()
                .map(|one| format!("{}: ClusterLink {}: {}", one.side.label, one.link, one.seen))
                .collect();
            bail!(
                "not connected after {} s; the ClusterLinks stay and are tried on:\n{}\n`isthmus \
                 check --context` of each side says more",
                limit.as_secs(),
                lines.join("\n")
            );
        }
        waiting = open;
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a link is connected, and its state in words.
fn state(link: Option<&Value>) -> (bool, String) {
    let Some(link) = link else { return (false, "is gone: somebody has removed it".to_owned()) };
    let text = |field: &str| link[field].as_str().unwrap_or_default();
    let mut words = text("state").to_owned();
    let is_connected = words == "connected";
    if is_connected && !text("transport").is_empty() {
        words.push_str(&format!(" over {}", text("transport")));
    }
    let why = [text("reason"), text("message")].map(str::trim);
    for part in why.iter().filter(|part| !is_connected && !part.is_empty()) {
        words.push_str(&format!(": {part}"));
    }
    (is_connected, words)
}

fn keep(args: &JoinArgs) -> Keep {
    Keep { import: args.import.is_empty(), export: args.export.is_empty() }
}

fn places(invitation: &Invitation) -> String {
    let places = invitation.addresses.join(", ");
    if places.is_empty() { "no address".to_owned() } else { places }
}

fn name(link: &Value) -> &str {
    link["metadata"]["name"].as_str().unwrap_or_default()
}

/// How long both sides may take, unless the command line says otherwise.
const WAIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_secs(1);
/// Bytes that are read of standard input: more than any token.
const STDIN_BYTES_MAX: u64 = 512 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_says_why_it_is_not_connected() {
        let link =
            json!({"state": "down", "reason": "NoPath", "message": "timeout", "transport": null});
        assert_eq!(state(Some(&link)), (false, "down: NoPath: timeout".to_owned()));
        let link = json!({"state": "connected", "reason": "Connected", "message": "", "transport": "quic"});
        assert_eq!(state(Some(&link)), (true, "connected over quic".to_owned()));
        assert!(!state(None).0);
    }
}
