//! `isthmus up --check`: validates settings and manifests, starts nothing.

use std::process::ExitCode;

use isthmus_config::check_directory;

use crate::settings::Settings;

/// Prints what is wrong; fails when something is.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let report = check_directory(&settings.manifests, &settings.context())?;
    for error in &report.errors {
        println!("error: {error}");
    }
    for condition in &report.conditions {
        println!("error: {condition}");
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    for notice in &report.notices {
        println!("notice: {}: {} is not used", notice.origin, notice.kind);
    }
    let wrong = report.errors.len() + report.conditions.len();
    println!(
        "{}: {} objects, {wrong} errors, {} warnings",
        settings.cluster,
        report.objects,
        report.warnings.len()
    );
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
