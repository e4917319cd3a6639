//! `isthmus ca init`, `bundle` and `rotate`.
//!
//! The bundle is read from the authority's state. While another process holds that state,
//! it is asked instead.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use isthmus_certs::{Authority, AuthorityError};
use isthmus_runtime::clock;

use super::admin::Admin;
use super::output;
use crate::settings::Settings;

/// Makes the authority if there is none, and prints its trust bundle.
pub(crate) fn init(file: &Path) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(file)?;
    let text = trust_bundle(&settings, file)?;
    let folder = settings.authority_options().state_dir;
    let (domain, folder) = (&settings.trust_domain, folder.display());
    eprintln!("the authority of trust domain {domain} is in {folder}; its trust bundle:");
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the trust bundle.
pub(crate) fn bundle(file: &Path) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(file)?;
    output::print(&trust_bundle(&settings, file)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Begins the rotation of the root.
pub(crate) fn rotate(file: &Path) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(file)?;
    Admin::new(&settings, file).post("/ca/rotate")?;
    output::print(
        "the rotation has begun: the new root is published now, signs after ca.rotationOverlap,\n\
         and the old one is dropped when no certificate under it is alive\n",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The bundle as JWKS, one line at the end.
fn trust_bundle(settings: &Settings, file: &Path) -> anyhow::Result<String> {
    let state = &settings.state;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .with_context(|| format!("cannot create the state folder {}", state.display()))?;
    let mut text = match Authority::open(settings.authority_options(), clock::wall()) {
        Ok(authority) => String::from_utf8(authority.bundle().to_jwks())?,
        Err(AuthorityError::Locked { .. }) => {
            let asked = Admin::new(settings, file).get("/ca/bundle");
            let answer = asked.context("another process holds the authority's state")?;
            let bundle = answer["bundle"].as_str();
            bundle.context("the running cluster gave no trust bundle")?.to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use isthmus_certs::Bundle;
    use isthmus_telemetry::{AdminError, AdminRoutes};
    use serde_json::json;

    use super::*;
    use crate::commands::admin::tests::Rig;

    #[test]
    fn the_bundle_is_made_on_first_use_and_stays_the_same() {
        let rig = Rig::new(&AdminRoutes::new());
        let first = trust_bundle(&rig.settings, &rig.file).unwrap();
        assert_eq!(trust_bundle(&rig.settings, &rig.file).unwrap(), first);
        let bundle = Bundle::from_jwks(&rig.settings.trust_domain, first.as_bytes()).unwrap();
        assert_eq!(bundle.authorities().len(), 1);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&rig.settings.state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_running_cluster_is_asked_for_the_bundle() {
        let routes = AdminRoutes::new();
        routes.get("/ca/bundle", |_| Ok(json!({"bundle": "{\"keys\": []}"})));
        let mut rig = Rig::new(&routes);
        std::fs::create_dir_all(&rig.settings.state).unwrap();
        let options = rig.settings.authority_options();
        let holder = Authority::open(options, clock::wall()).unwrap();
        let text = trust_bundle(&rig.settings, &rig.file).unwrap();
        assert_eq!(text, "{\"keys\": []}\n");
        rig.stop();
        let error = trust_bundle(&rig.settings, &rig.file).unwrap_err();
        assert_eq!(error.to_string(), "another process holds the authority's state");
        drop(holder);
        trust_bundle(&rig.settings, &rig.file).unwrap();
    }

    #[test]
    fn a_rotation_is_asked_of_the_running_cluster() {
        let routes = AdminRoutes::new();
        routes.post("/ca/rotate", |_| Ok(json!({"rotation": "begun"})));
        let mut rig = Rig::new(&routes);
        rotate(&rig.file).unwrap();
        rig.stop();
        assert!(rotate(&rig.file).is_err());
        let busy = AdminRoutes::new();
        busy.post("/ca/rotate", |_| Err(AdminError::Unavailable { reason: "busy".into() }));
        assert!(rotate(&Rig::new(&busy).file).unwrap_err().to_string().contains("busy"));
    }
}
