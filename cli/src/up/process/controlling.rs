//! The controller side of a process: the lead, the authority, the controller.

use std::sync::Arc;

use super::Process;
use crate::settings::Settings;
use crate::up::Selection;
use crate::up::control::{Authorities, Control};
use crate::up::identity::Identities;
use crate::up::kubernetes::{Cluster, Kept, Led};

impl Process {
    /// Waits for the lead in a cluster of Kubernetes, and restores the authority's keys;
    /// `None` elsewhere.
    ///
    /// A controller that stands by is ready: it is as far as it can come, and a rollout has
    /// to count it. No Service leads to it, because only the leader's pod has the label.
    pub(super) async fn lead(&mut self, selection: &Selection) -> anyhow::Result<Option<Kept>> {
        let settings = Arc::clone(&self.settings);
        let Some(own) = &settings.kubernetes else { return Ok(None) };
        self.readiness.set_waiting("start", "the API server has not answered");
        // Kept by the process from here on, so that its end releases the Lease.
        let cluster = self.cluster.insert(Cluster::join(own).await?);
        if *selection == Selection::Controller {
            self.readiness.set_ready("start");
        } else {
            self.readiness.set_waiting("start", "another process leads");
        }
        cluster.elected().await;
        self.readiness.set_waiting("start", "the process begins to lead");
        let folder = settings.authority_options().state_dir;
        let kept = Kept::restore(cluster.client.clone(), folder).await?;
        cluster.follow(kept.superseded());
        Ok(Some(kept))
    }

    /// Completes when the lead is lost; never where there is none.
    pub(super) async fn lost(&mut self) {
        match &mut self.cluster {
            Some(cluster) => cluster.lost().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn start_authorities(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let stop = self.stop();
        let authorities = Authorities::start(settings)?;
        let handle = authorities.handle();
        // In a cluster of Kubernetes its keys are kept with each step, by whom it rotates.
        if self.cluster.is_none() {
            self.tasks.spawn(handle.clone().run(stop));
        }
        self.board.set_authority(handle);
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
                let readiness = self.readiness.clone();
                Some(Led::begin(cluster, authorities.handle(), kept, readiness).await?)
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
