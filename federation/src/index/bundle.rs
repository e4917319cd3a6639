//! Bundles of the index: the own one, those of links, and those that peers bring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use isthmus_certs::{Acceptance, Bundle};
use isthmus_model::{ClusterId, TrustDomain};

use super::Index;
use crate::proto::{BundleDocument, Entry, EntryKey};

impl Index {
    /// The own authority has another bundle.
    pub(crate) fn set_own_bundle(&mut self, wall: SystemTime, bundle: &Bundle) {
        if let Err(error) = self.bundles.set_own(wall, bundle.clone()) {
            tracing::error!(%error, "the bundle of the own authority is not usable");
            return;
        }
        self.own_bundle = Some(document(bundle));
        self.changed = true;
    }

    /// Takes the bundle that a peer brought, for its own trust domain only.
    pub(super) fn take_peer_bundle(&mut self, wall: SystemTime, cluster: &ClusterId) {
        let Some(peer) = self.peers.get(cluster) else { return };
        let entry = peer.importer.entries().get(&EntryKey::Bundle).map(Arc::as_ref);
        if let Some(Entry::Bundle(bundle)) = entry {
            let jwks = Arc::clone(&bundle.jwks);
            self.take_bundle(wall, cluster, Source::Session, jwks);
        }
    }

    /// Takes the bundles that links give themselves.
    pub(super) fn take_link_bundles(&mut self, wall: SystemTime) {
        let given = self
            .configured
            .links
            .iter()
            .filter_map(|(cluster, link)| Some((cluster.clone(), link.jwks.clone()?)));
        let given: Vec<_> = given.collect();
        for (cluster, jwks) in given {
            self.take_bundle(wall, &cluster, Source::Link, jwks);
        }
    }

    /// The accepted bundles of other trust domains.
    pub(super) fn bundle_documents(&self) -> BTreeMap<TrustDomain, BundleDocument> {
        let others = self.bundles.bundles().filter(|b| *b.trust_domain() != self.own.trust_domain);
        others.map(|bundle| (bundle.trust_domain().clone(), document(bundle))).collect()
    }

    /// Each document is tried once: a refused one is as refused the next time.
    fn take_bundle(
        &mut self,
        wall: SystemTime,
        cluster: &ClusterId,
        source: Source,
        jwks: Arc<str>,
    ) {
        let Some(peer) = self.peers.get_mut(cluster) else { return };
        let [of_session, of_link] = &mut peer.tried;
        let tried = match source {
            Source::Link => of_link,
            Source::Session => of_session,
        };
        if tried.as_ref() == Some(&jwks) {
            return;
        }
        *tried = Some(Arc::clone(&jwks));
        let domain = peer.importer.rules().trust_domain.clone();
        let bundle = match Bundle::from_jwks(&domain, jwks.as_bytes()) {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(peer = %cluster, %error, "a trust bundle was refused");
                peer.last_error = Some(error.to_string());
                return;
            }
        };
        let first = self.bundles.bundle(&domain).is_none();
        let outcome = match source {
            // A link that is new says whom to trust; later, the peer itself does, and what
            // the link still says must not undo a rotation.
            Source::Link if first => self.bundles.accept_by_operator(wall, &domain, bundle),
            Source::Link | Source::Session => self.bundles.accept(wall, &domain, bundle),
        };
        match outcome {
            Ok(Acceptance::Accepted | Acceptance::AcceptedInMemory) => self.changed = true,
            Ok(Acceptance::Unchanged) => {}
            Err(error) => {
                tracing::warn!(peer = %cluster, %error, "a trust bundle was refused");
                peer.last_error = Some(error.to_string());
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Link,
    Session,
}

fn document(bundle: &Bundle) -> BundleDocument {
    let jwks = String::from_utf8_lossy(&bundle.to_jwks()).into_owned();
    BundleDocument { jwks: Arc::from(jwks), sequence: bundle.sequence().unwrap_or_default() }
}
