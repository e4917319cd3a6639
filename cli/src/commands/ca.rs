//! `isthmus ca bundle` and `isthmus ca rotate`.

use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;

use anyhow::Context as _;
use isthmus_certs::Authority;
use isthmus_runtime::clock;

use super::admin;
use crate::settings::Settings;

/// Prints the trust bundle of the cluster.
///
/// A running authority holds its state, so it is asked first; without one the state is
/// opened, and made when there is none.
pub(crate) fn bundle(settings: &Settings) -> anyhow::Result<ExitCode> {
    if let Ok(answer) = admin::get(settings, "/ca/bundle") {
        let text = answer.get("bundle").and_then(|bundle| bundle.as_str());
        println!("{}", text.context("the cluster has no authority in that process")?);
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.state)
        .with_context(|| format!("cannot create {}", settings.state.display()))?;
    let authority = Authority::open(settings.authority_options(), clock::wall())?;
    println!("{}", String::from_utf8_lossy(&authority.bundle().to_jwks()));
    Ok(ExitCode::SUCCESS)
}

/// Begins a rotation of the root.
pub(crate) fn rotate(settings: &Settings) -> anyhow::Result<ExitCode> {
    admin::post(settings, "/ca/rotate")?;
    println!("the authority of {} rotates its root", settings.cluster);
    Ok(ExitCode::SUCCESS)
}
