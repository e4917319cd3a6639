//! The certificate authority of one cluster.
//!
//! A root signs an intermediate, the intermediate signs SVIDs. The root's key is read
//! from disk only for the moment in which it signs. Everything that must survive a crash
//! is one small state file, replaced atomically, that names numbered key and certificate
//! files; a file that it does not name is an orphan of a crash and is removed.
//!
//! # Rotation of the root
//!
//! ```text
//! Steady ──publish──▶ Published ──activate──▶ Retiring ──retire──▶ Steady
//!         both roots              new root               only the
//!         in the bundle           signs                  new root
//! ```
//!
//! Between publish and activate lies the overlap, in which all peers learn the new root.
//! Between activate and retire lies one SVID lifetime, after which no certificate of the
//! old root is alive. Each change of the bundle raises its sequence. The intermediate
//! needs no such dance, because it travels in the chain.
//!
//! # Flow
//!
//! 1. [`options`]: settings and their limits.
//! 2. [`plan`]: the phases and what is due; pure.
//! 3. `files`: the state directory.
//! 4. `mint`: the certificates themselves.
//! 5. `rotate`: the steps.
//! 6. `user`: an intermediate that the user brings.
//! 7. [`handle`]: the authority shared by the tasks of a process.

pub mod error;

pub(crate) mod files;

pub mod handle;

mod mint;

pub mod options;

pub mod plan;

mod rotate;

mod user;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use isthmus_model::{SpiffeId, TrustDomain};
use rustls::pki_types::CertificateDer;

pub use self::error::AuthorityError;
use self::files::{Anchors, RootRecord, State, StateDir};
pub use self::handle::{AuthorityHandle, AuthorityIssuer};
pub(crate) use self::mint::signing_request;
use self::mint::{Signer, Validity};
pub use self::options::{AuthorityOptions, UserIntermediate};
pub use self::plan::RotationStep;
use self::plan::{Plan, RootPhase};
use crate::bundle::Bundle;
use crate::crypto::PrivateKey;
use crate::csr;
use crate::moment;
use crate::x509::CaCertificate;

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct IssuedSvid {
    /// Leaf first, then intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The serial number.
    pub serial: [u8; 16],
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// The authority of one trust domain.
#[derive(Debug)]
pub struct Authority {
    options: AuthorityOptions,
    dir: StateDir,
    state: State,
    roots: BTreeMap<u64, Arc<CaCertificate>>,
    signer: Signer,
    bundle: Arc<Bundle>,
}

impl Authority {
    /// Loads the authority from its state directory, or makes it on the first start.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] names the setting or the file, and what is wrong with it.
    /// Nothing that exists is ever overwritten by a new authority.
    pub fn open(options: AuthorityOptions, now: SystemTime) -> Result<Self, AuthorityError> {
        options.check()?;
        let dir = StateDir::open(options.state_dir.clone())?;
        let now = moment::seconds(now);
        let mut authority = match (dir.load_state()?, &options.user_intermediate) {
            (None, None) => Self::create(options, dir, now)?,
            (None, Some(_)) => Self::create_with_user(options, dir, now)?,
            (Some(state), _) => Self::load(options, dir, state, now)?,
        };
        authority.raise_lifetime()?;
        authority.dir.remove_orphans(&authority.state);
        Ok(authority)
    }

    fn create(options: AuthorityOptions, dir: StateDir, now: u64) -> Result<Self, AuthorityError> {
        dir.begin_creation()?;
        let (root, record) = new_root(&options, &dir, FIRST_GENERATION, now)?;
        let roots = BTreeMap::from([(FIRST_GENERATION, root)]);
        let (signer, intermediate) = new_intermediate(&options, &dir, &record, 2, now)?;
        let state = State {
            version: files::STATE_VERSION,
            trust_domain: options.trust_domain.clone(),
            // An authority that lost its state begins above what its peers have seen.
            sequence: now.max(1),
            next_generation: 3,
            svid_seconds_max: options.svid_lifetime.as_secs(),
            anchors: Anchors::Own {
                phase: RootPhase::Steady { active: FIRST_GENERATION },
                intermediate,
            },
        };
        dir.save_state(&state)?;
        let bundle = own_bundle(&options, &state, &roots)?;
        Ok(Self { options, dir, state, roots, signer, bundle })
    }

    fn load(
        options: AuthorityOptions,
        dir: StateDir,
        state: State,
        now: u64,
    ) -> Result<Self, AuthorityError> {
        dir.check_state(&state, &options)?;
        let Anchors::Own { phase, intermediate } = &state.anchors else {
            return Self::load_with_user(options, dir, state, now);
        };
        let mut roots = BTreeMap::new();
        for generation in phase.generations() {
            roots.insert(generation, dir.load_root(&options.trust_domain, generation)?);
        }
        let signer = dir.load_intermediate(&options.trust_domain, *intermediate)?;
        let signed_by = roots.get(&phase.active()).cloned().into_iter().collect();
        signer.check(&options.trust_domain, signed_by).map_err(|reason| {
            AuthorityError::Corrupt { path: dir.intermediate_path(*intermediate), reason }
        })?;
        let bundle = own_bundle(&options, &state, &roots)?;
        Ok(Self { options, dir, state, roots, signer, bundle })
    }

    /// Signs the public key of a request for an ID.
    ///
    /// The request contributes its public key and nothing else. The certificate begins
    /// five minutes ago, for clocks that are behind.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Csr`] and [`AuthorityError::ForeignId`] are the requester's
    /// fault; others are ours.
    pub fn sign(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<IssuedSvid, AuthorityError> {
        if *id.trust_domain() != self.options.trust_domain {
            let domain = self.options.trust_domain.clone();
            return Err(AuthorityError::ForeignId { id: id.clone(), domain });
        }
        let key = csr::proven_key(csr_der)?;
        let now = moment::seconds(now);
        let validity = self.signer.svid_validity(now, self.options.svid_lifetime.as_secs())?;
        let serial = mint::serial()?;
        let leaf = self.signer.sign_leaf(&key, id, serial, validity)?;
        // The audit log has to name the identity, unlike other logs at this level.
        tracing::info!(
            target: AUDIT_TARGET, %id, serial = %mint::hex(&serial), not_after = validity.not_after,
            "issued an SVID"
        );
        let chain = std::iter::once(leaf).chain(self.signer.chain().iter().cloned()).collect();
        Ok(IssuedSvid { chain, serial, not_after: moment::time(validity.not_after) })
    }

    /// Does what is due by the clock; call it every minute or at [`Self::next_due`].
    ///
    /// # Errors
    ///
    /// [`AuthorityError`]; the authority goes on with what it has, and the same step is
    /// tried again by the next call.
    pub fn tick(&mut self, now: SystemTime) -> Result<Vec<RotationStep>, AuthorityError> {
        let now = moment::seconds(now);
        let mut done = Vec::new();
        // A machine that slept may have several steps due; each phase comes once.
        while done.len() < STEPS_MAX
            && let Some(step) = self.plan().due(now)
        {
            self.execute(step, now)?;
            done.push(step);
        }
        Ok(done)
    }

    /// Begins a rotation of the root: the new root is published in the bundle now, signs
    /// after the overlap, and is alone one SVID lifetime later.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Rotation`] while another is under way, or when the root is the
    /// user's.
    pub fn rotate_root(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        match &self.state.anchors {
            Anchors::Own { phase: RootPhase::Steady { .. }, .. } => {
                self.execute(RotationStep::PublishRoot, moment::seconds(now))
            }
            Anchors::Own { .. } => {
                Err(AuthorityError::Rotation { reason: "a rotation of the root is under way" })
            }
            Anchors::User { .. } => Err(AuthorityError::Rotation { reason: ROOT_IS_EXTERNAL }),
        }
    }

    /// Makes a new intermediate and signs with it from now on.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Rotation`] when the intermediate is the user's.
    pub fn rotate_intermediate(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        if matches!(self.state.anchors, Anchors::User { .. }) {
            return Err(AuthorityError::Rotation { reason: ROOT_IS_EXTERNAL });
        }
        self.execute(RotationStep::RotateIntermediate, moment::seconds(now))
    }

    /// When [`Self::tick`] has something to do next.
    pub fn next_due(&self) -> SystemTime {
        moment::time(self.plan().next_due())
    }

    /// The bundle of the own trust domain.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The own trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.options.trust_domain
    }

    /// The lifetime of the SVIDs that are issued now.
    pub fn svid_lifetime(&self) -> Duration {
        self.options.svid_lifetime
    }

    /// Whether a rotation of the root is under way.
    pub fn is_rotating_root(&self) -> bool {
        match &self.state.anchors {
            Anchors::Own { phase, .. } => !matches!(phase, RootPhase::Steady { .. }),
            Anchors::User { former, .. } => !former.is_empty(),
        }
    }

    fn plan(&self) -> Plan {
        match &self.state.anchors {
            Anchors::Own { phase, .. } => Plan::Own {
                phase: phase.clone(),
                root: self
                    .roots
                    .get(&phase.active())
                    .map_or(Validity::NONE, |root| root.validity()),
                intermediate: self.signer.validity(),
            },
            Anchors::User { former, .. } => {
                Plan::User { retire_at: former.iter().map(|former| former.retire_at).min() }
            }
        }
    }

    /// Writes the state and only then believes it: a step that could not be written has
    /// not happened.
    fn commit(
        &mut self,
        state: State,
        roots: BTreeMap<u64, Arc<CaCertificate>>,
    ) -> Result<(), AuthorityError> {
        let bundle = own_bundle(&self.options, &state, &roots)?;
        self.dir.save_state(&state)?;
        (self.state, self.roots, self.bundle) = (state, roots, bundle);
        Ok(())
    }

    /// Certificates issued under a former, longer setting are still alive; a root must
    /// not be retired before them.
    fn raise_lifetime(&mut self) -> Result<(), AuthorityError> {
        let lifetime = self.options.svid_lifetime.as_secs();
        if lifetime > self.state.svid_seconds_max {
            let mut state = self.state.clone();
            state.svid_seconds_max = lifetime;
            self.dir.save_state(&state)?;
            self.state = state;
        }
        Ok(())
    }
}

fn new_root(
    options: &AuthorityOptions,
    dir: &StateDir,
    generation: u64,
    now: u64,
) -> Result<(Arc<CaCertificate>, RootRecord), AuthorityError> {
    let key = PrivateKey::generate()?;
    let validity = Validity::of_ca(now, options.root_lifetime.as_secs());
    let der = mint::root(&options.trust_domain, &key, validity)?;
    dir.save_root(generation, &der, &key)?;
    let certificate = dir.load_root(&options.trust_domain, generation)?;
    Ok((Arc::clone(&certificate), RootRecord { certificate, key }))
}

fn new_intermediate(
    options: &AuthorityOptions,
    dir: &StateDir,
    root: &RootRecord,
    generation: u64,
    now: u64,
) -> Result<(Signer, u64), AuthorityError> {
    let key = PrivateKey::generate()?;
    let lifetime = options.intermediate_lifetime.as_secs();
    let validity = Validity::of_ca(now, lifetime).within(root.certificate.validity());
    let der = mint::intermediate(&options.trust_domain, &key, root, validity)?;
    dir.save_intermediate(generation, &der, &key)?;
    let signer = Signer::new(vec![der], key, &options.trust_domain)?;
    Ok((signer, generation))
}

fn own_bundle(
    options: &AuthorityOptions,
    state: &State,
    roots: &BTreeMap<u64, Arc<CaCertificate>>,
) -> Result<Arc<Bundle>, AuthorityError> {
    let domain = options.trust_domain.clone();
    let (sequence, hint) = (Some(state.sequence), Some(options.refresh_hint));
    let authorities = roots.values().cloned().collect();
    Ok(Arc::new(Bundle::from_authorities(domain, sequence, hint, authorities)?))
}

/// The target of the log lines that record each issued certificate.
pub const AUDIT_TARGET: &str = "isthmus_audit";
const FIRST_GENERATION: u64 = 1;
const ROOT_IS_EXTERNAL: &str = "the intermediate is the user's: replace its files and reload";
/// Publish, activate, retire and one intermediate.
const STEPS_MAX: usize = 4;

#[cfg(test)]
mod tests;
