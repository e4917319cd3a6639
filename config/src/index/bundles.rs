//! The trust bundles of links that are in ConfigMaps.

use crate::error::{FieldError, Reason};
use crate::objects::{BundleSource, ClusterLink, Objects};
use crate::validate::mesh::check_jwks;

/// Puts the text of the ConfigMap into a link that names one. A link keeps the bundle that
/// it has among the objects when the ConfigMap is gone or has become invalid.
pub(super) fn resolve(link: &mut ClusterLink, objects: &Objects) -> Result<(), FieldError> {
    let BundleSource::ConfigMap { config_map, key, jwks } = &mut link.bundle else {
        return Ok(());
    };
    let found = objects.config_maps.get(config_map).and_then(|found| found.data.get(key));
    let checked = match found {
        None => Err(Reason::Reference { target: format!("ConfigMap {config_map} key {key:?}") }),
        Some(text) => check_jwks(text).map(|()| text.clone()),
    };
    match checked {
        Ok(text) => {
            *jwks = Some(text);
            Ok(())
        }
        Err(reason) => {
            if let Some(before) = objects.cluster_links.get(&link.name) {
                *jwks = before.jwks().map(str::to_owned);
            }
            Err(FieldError::new("spec.bundle.configMapRef", reason))
        }
    }
}
