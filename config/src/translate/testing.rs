//! What the tests of translation share.

use std::sync::Arc;

use isthmus_model::{Listener, Resource};

use super::Translation;
use crate::index::Index;
use crate::objects::Objects;
use crate::source::SourceDocument;

/// The objects of a text, every one of which must be valid.
pub(super) fn objects(text: &str) -> Arc<Objects> {
    let mut index = Index::new();
    let outcome = index.apply(&SourceDocument::split("t.yaml", text), 7);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    Arc::clone(index.objects())
}

/// The resources, in order.
pub(super) fn resources(translation: &Translation) -> impl Iterator<Item = &Resource> {
    translation.resources.iter().map(|named| named.resource.as_ref())
}

/// The listeners, in order.
pub(super) fn listeners(translation: &Translation) -> Vec<&Listener> {
    let mut found = Vec::new();
    for resource in resources(translation) {
        if let Resource::Listener(listener) = resource {
            found.push(listener);
        }
    }
    found
}

/// What a Secret has with a certificate and a key in the form of PEM.
pub(super) const PEM: &str = "
type: kubernetes.io/tls
stringData:
  tls.crt: |
    -----BEGIN CERTIFICATE-----
    MAA=
    -----END CERTIFICATE-----
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    MAA=
    -----END PRIVATE KEY-----
";
