//! The steps of a rotation. Each makes its files, then writes the state, then is believed.

use super::files::Anchors;
use super::plan::RootPhase;
use super::{Authority, AuthorityError, RotationStep, mint, new_intermediate, new_root};

impl Authority {
    pub(super) fn execute(&mut self, step: RotationStep, now: u64) -> Result<(), AuthorityError> {
        let sequence = match step {
            RotationStep::PublishRoot => self.publish_root(now),
            RotationStep::ActivateRoot => self.activate_root(now),
            RotationStep::RetireRoot => self.retire_root(now),
            RotationStep::RotateIntermediate => self.renew_intermediate(now),
            RotationStep::RetireUserRoot => self.retire_user_root(now),
        }
        .map(|()| self.state.sequence)?;
        tracing::info!(step = step.label(), sequence, "the authority rotated");
        Ok(())
    }

    fn publish_root(&mut self, now: u64) -> Result<(), AuthorityError> {
        let Anchors::Own { phase: RootPhase::Steady { active }, intermediate } = self.state.anchors
        else {
            return Ok(());
        };
        let mut state = self.state.clone();
        let next = state.take_generation();
        let (root, _) = new_root(&self.options, &self.dir, next, now)?;
        let activate_at = now.saturating_add(self.options.root_overlap.as_secs());
        let phase = RootPhase::Published { active, next, activate_at };
        state.anchors = Anchors::Own { phase, intermediate };
        state.sequence = state.sequence.saturating_add(1);
        let mut roots = self.roots.clone();
        roots.insert(next, root);
        self.commit(state, roots)
    }

    fn activate_root(&mut self, now: u64) -> Result<(), AuthorityError> {
        let Anchors::Own { phase: RootPhase::Published { active, next, .. }, .. } =
            self.state.anchors
        else {
            return Ok(());
        };
        let mut state = self.state.clone();
        let generation = state.take_generation();
        let record = self.dir.load_root_record(&self.options.trust_domain, next)?;
        let (signer, intermediate) =
            new_intermediate(&self.options, &self.dir, &record, generation, now)?;
        let alive = state.svid_seconds_max;
        let retire_at = now.saturating_add(alive).saturating_add(alive.min(mint::BACKDATE_SECONDS));
        let phase = RootPhase::Retiring { active: next, former: active, retire_at };
        state.anchors = Anchors::Own { phase, intermediate };
        self.commit(state, self.roots.clone())?;
        self.signer = signer;
        Ok(())
    }

    fn retire_root(&mut self, _: u64) -> Result<(), AuthorityError> {
        let Anchors::Own { phase: RootPhase::Retiring { active, former, .. }, intermediate } =
            self.state.anchors
        else {
            return Ok(());
        };
        let mut state = self.state.clone();
        state.anchors = Anchors::Own { phase: RootPhase::Steady { active }, intermediate };
        state.sequence = state.sequence.saturating_add(1);
        state.svid_seconds_max = self.options.svid_lifetime.as_secs();
        let mut roots = self.roots.clone();
        roots.remove(&former);
        self.commit(state, roots)?;
        self.dir.remove_orphans(&self.state);
        Ok(())
    }

    fn renew_intermediate(&mut self, now: u64) -> Result<(), AuthorityError> {
        let Anchors::Own { phase, .. } = &self.state.anchors else { return Ok(()) };
        let phase = phase.clone();
        let mut state = self.state.clone();
        let generation = state.take_generation();
        let record = self.dir.load_root_record(&self.options.trust_domain, phase.active())?;
        let (signer, intermediate) =
            new_intermediate(&self.options, &self.dir, &record, generation, now)?;
        state.anchors = Anchors::Own { phase, intermediate };
        self.commit(state, self.roots.clone())?;
        self.signer = signer;
        self.dir.remove_orphans(&self.state);
        Ok(())
    }
}
