//! `isthmus link`: joins clusters, shows their links and takes them apart.
//!
//! A link needs a ClusterLink on each side and nothing else. These commands only write
//! those two objects, from the invitations that the controllers publish; whoever writes
//! them by other means gets the same link. What goes from one cluster to the other is an
//! invitation, which is public. The credentials of the operator stay on this machine.
//!
//! # Flow
//!
//! 1. [`args`]: the command lines.
//! 2. `side`: one of the two clusters, read and written.
//! 3. `join`, `remove`, `status`: one file for each command.

pub(crate) mod args;

mod join;

mod remove;

mod side;

mod status;

use std::process::ExitCode;

use isthmus_kubernetes::link::Invitation;

use self::args::{LinkCommand, TokenArgs};
use self::side::Side;
use super::output;
use super::reach::{block_on, say};

/// Does what the command line says.
pub(crate) fn run(command: &LinkCommand) -> anyhow::Result<ExitCode> {
    match command {
        LinkCommand::Token(args) => block_on(token(args)),
        LinkCommand::Join(args) => block_on(join::run(args)),
        LinkCommand::Status(args) => block_on(status::run(args)),
        LinkCommand::Remove(args) => block_on(remove::run(args)),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the token of a cluster.
async fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let mut side = Side::connect(&args.access).await?;
    let invitation = side.invitation().await?;
    note_address(&invitation)?;
    say(&format!(
        "the token of {invitation} for `isthmus link join --token`: it is public, but decides \
         whom the other cluster trusts, so pass it on in a way that nobody can change it"
    ))?;
    output::print(&format!("{}\n", invitation.encode()))
}

/// Says of a cluster that cannot be dialled that the other one must.
fn note_address(invitation: &Invitation) -> anyhow::Result<()> {
    if invitation.addresses.is_empty() {
        say(&format!(
            "note: {invitation} has no address: only the other cluster's can be dialled; if that \
             is not meant, see the Service isthmus-system/isthmus-eastwest-link"
        ))?;
    }
    Ok(())
}
