//! The controller side of a process: the lead, the authority, the controller.

use std::sync::Arc;

use super::Process;
use crate::settings::Settings;
use crate::up::control::{Authorities, Control};
use crate::up::identity::Identities;
use crate::up::kubernetes::{Cluster, Kept, Led};

impl Process {
    /// Waits for the lead in a cluster of Kubernetes, and restores the authority's keys;
    /// `None` elsewhere.
    pub(super) async fn lead(&mut self) -> anyhow::Result<Option<Kept>> {
        let settings = Arc::clone(&self.settings);
        let Some(own) = &settings.kubernetes else { return Ok(None) };
        self.readiness.set_waiting("start", "another process leads");
        let stop = self.stop();
        let cluster = Cluster::lead(own, stop).await?;
        let folder = settings.authority_options().state_dir;
        let kept = Kept::restore(cluster.client.clone(), folder).await?;
        self.cluster = Some(cluster);
        Ok(Some(kept))
    }

    /// Completes when the lead is lost; never where there is none.
    pub(super) async fn lost(&mut self) {
        match &mut self.cluster {
            Some(cluster) => cluster.leadership.lost().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn start_authorities(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let stop = self.stop();
        let authorities = Authorities::start(settings, &mut self.tasks, stop)?;
        self.board.set_authority(authorities.handle());
        self.board.role("ca");
        self.authorities = Some(authorities);
        Ok(())
    }

    pub(super) async fn start_control(
        &mut self,
        identities: &Identities,
        kept: Option<Kept>,
    ) -> anyhow::Result<()> {
        let telemetry = self.telemetry.as_ref().expect("telemetry runs until the end");
        let context = (&self.board, telemetry.registry(), self.background.stop());
        let led = match (&self.cluster, &self.authorities, kept) {
            (Some(cluster), Some(authorities), Some(kept)) => {
                Some(Led { cluster, authority: authorities.handle(), kept })
            }
            (Some(_) | None, _, _) => None,
        };
        let settings = &self.settings;
        let control = Control::start(settings, identities, context, led, &mut self.tasks).await?;
        self.control = Some(control);
        self.board.role("controller");
        Ok(())
    }
}
