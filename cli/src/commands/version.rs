//! `isthmus version`.

use std::process::ExitCode;

use serde_json::json;

use super::output;
use crate::args::Output;

/// Prints the version.
pub(crate) fn run(form: Output) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let link = String::from_utf8_lossy(isthmus_link::ALPN);
    let value = json!({
        "version": version,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "link": link,
    });
    output::show(&value, form, |_, wide| {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let more = if wide { format!("; link protocol {link}") } else { String::new() };
        format!("isthmus {version} ({os}/{arch}{more})\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
