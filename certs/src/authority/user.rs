//! An intermediate that the user brings, with roots that the user decides about.
//!
//! The authority follows the files: a root that disappears from them stays in the bundle
//! until the SVIDs under it are dead, and each change of the bundle raises its sequence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData;

use super::files::{self, Anchors, FormerRoot, State, StateDir, StoredRoot};
use super::mint::{self, Signer};
use super::{Authority, AuthorityError, AuthorityOptions, own_bundle};
use crate::moment;
use crate::x509::CaCertificate;

impl Authority {
    pub(super) fn create_with_user(
        options: AuthorityOptions,
        dir: StateDir,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        let state = State {
            version: files::STATE_VERSION,
            trust_domain: options.trust_domain.clone(),
            sequence: now.max(1),
            next_generation: 1,
            svid_seconds_max: options.svid_lifetime.as_secs(),
            anchors: Anchors::User { roots: Vec::new(), former: Vec::new() },
        };
        Self::load_with_user(options, dir, state, now)
    }

    pub(super) fn load_with_user(
        options: AuthorityOptions,
        dir: StateDir,
        state: State,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        let (signer, current) = read(&options)?;
        let next = follow(&state, &current, now);
        let roots = bundle_roots(&options, &dir, &next)?;
        let bundle = own_bundle(&options, &next, &roots)?;
        dir.save_state(&next)?;
        Ok(Self { options, dir, state: next, roots, signer, bundle })
    }

    /// Reads the user's files again, after the user has replaced them.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] names the file that is wrong; the authority goes on with what
    /// it had. [`AuthorityError::Rotation`] when the authority has its own root.
    pub fn reload_user_intermediate(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        if matches!(self.state.anchors, Anchors::Own { .. }) {
            let reason = "the authority has its own root, there is nothing to reload";
            return Err(AuthorityError::Rotation { reason });
        }
        let (signer, current) = read(&self.options)?;
        let next = follow(&self.state, &current, moment::seconds(now));
        let roots = bundle_roots(&self.options, &self.dir, &next)?;
        self.commit(next, roots)?;
        self.signer = signer;
        Ok(())
    }

    pub(super) fn retire_user_root(&mut self, now: u64) -> Result<(), AuthorityError> {
        let Anchors::User { roots, former } = &self.state.anchors else { return Ok(()) };
        let alive = former.iter().filter(|former| former.retire_at > now).cloned().collect();
        let anchors = Anchors::User { roots: roots.clone(), former: alive };
        let sequence = self.state.sequence.saturating_add(1);
        let next = State { anchors, sequence, ..self.state.clone() };
        let roots = bundle_roots(&self.options, &self.dir, &next)?;
        self.commit(next, roots)
    }
}

/// Reads and checks the three files.
fn read(options: &AuthorityOptions) -> Result<(Signer, Vec<Arc<CaCertificate>>), AuthorityError> {
    let Some(files) = &options.user_intermediate else {
        let reason = "is needed, this state directory follows a user's root";
        return Err(AuthorityError::Option { setting: "user_intermediate", reason });
    };
    let domain = &options.trust_domain;
    let parse = |der| {
        CaCertificate::parse(der, domain)
            .map(Arc::new)
            .map_err(|error| files::corrupt(&files.roots, &error.to_string()))
    };
    let roots: Result<Vec<_>, _> =
        files::read_certificates(&files.roots)?.iter().map(|der| parse(der)).collect();
    let roots = roots?;
    let chain = files::read_certificates(&files.chain)?;
    let key = files::read_key(&files.key)?;
    let issuing = chain.first().and_then(|der| CaCertificate::parse(der, domain).ok());
    if issuing.is_none_or(|issuing| issuing.key_info() != key.subject_public_key_info()) {
        let reason = "the key is not that of the first certificate of the chain";
        return Err(files::corrupt(&files.key, reason));
    }
    let signer = Signer::new(chain, key, domain)
        .map_err(|error| files::corrupt(&files.chain, &error.to_string()))?
        .without_anchors(&roots);
    signer.check(domain, roots.clone()).map_err(|reason| files::corrupt(&files.chain, &reason))?;
    Ok((signer, roots))
}

/// The state after the user's roots became `current`; pure.
fn follow(state: &State, current: &[Arc<CaCertificate>], now: u64) -> State {
    let Anchors::User { roots, former } = &state.anchors else { return state.clone() };
    let stored: Vec<_> =
        current.iter().map(|root| StoredRoot { der: STANDARD.encode(root.der()) }).collect();
    let alive = state.svid_seconds_max;
    let retire_at = now.saturating_add(alive).saturating_add(alive.min(mint::BACKDATE_SECONDS));
    let gone = roots.iter().filter(|root| !stored.contains(root));
    let gone = gone.map(|root| FormerRoot { der: root.der.clone(), retire_at });
    let back = |former: &FormerRoot| stored.iter().any(|root| root.der == former.der);
    let former: Vec<_> =
        former.iter().filter(|former| !back(former)).cloned().chain(gone).collect();
    let anchors = Anchors::User { roots: stored, former };
    let changed = anchors != state.anchors;
    let sequence = if changed { state.sequence.saturating_add(1) } else { state.sequence };
    State { anchors, sequence, ..state.clone() }
}

fn bundle_roots(
    options: &AuthorityOptions,
    dir: &StateDir,
    state: &State,
) -> Result<BTreeMap<u64, Arc<CaCertificate>>, AuthorityError> {
    let Anchors::User { roots, former } = &state.anchors else { return Ok(BTreeMap::new()) };
    let current = roots.iter().map(|root| &root.der);
    let all = current.chain(former.iter().map(|former| &former.der));
    let mut bundle = BTreeMap::new();
    for (index, text) in (0..).zip(all) {
        let corrupt = || dir.corrupt_state("a stored root is not a certificate");
        let der = STANDARD.decode(text).map_err(|_| corrupt())?;
        let root = CaCertificate::parse(&der, &options.trust_domain).map_err(|_| corrupt())?;
        bundle.insert(index, Arc::new(root));
    }
    Ok(bundle)
}
