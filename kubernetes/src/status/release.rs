//! The releases of the Gateway API whose definitions we understand.
//!
//! Spec: Gateway API "Versioning": every CustomResourceDefinition of a release names it in
//! an annotation.

use std::ops::RangeInclusive;

/// Whether definitions of a release (`v1.6.3`) are understood. Those of another are used as
/// far as they agree.
pub fn is_supported(release: &str) -> bool {
    let mut parts = release.strip_prefix('v').unwrap_or(release).split('.');
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    number() == Some(1) && number().is_some_and(|minor| MINORS.contains(&minor))
}

/// The annotation of the definitions that names their release.
pub const ANNOTATION: &str = "gateway.networking.k8s.io/bundle-version";
/// The release that we are built against.
pub const KNOWN: &str = "v1.6.3";
/// The minor versions of Gateway API 1 whose definitions are understood.
pub const MINORS: RangeInclusive<u32> = 4..=6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_supported_by_their_minor_version() {
        for release in [KNOWN, "v1.4.0", "v1.5.1", "v1.6.0-rc.1", "1.6.3"] {
            assert!(is_supported(release), "{release}");
        }
        for release in ["v1.3.0", "v1.7.0", "v2.5.0", "v0.8.1", "v1", "main", ""] {
            assert!(!is_supported(release), "{release}");
        }
    }
}
