//! The task that owns the published state, the sessions, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::session::{
    Authority, Incoming, Outgoing, Session, SessionError, SessionEvent, SessionId,
};
use super::{Publication, SubscriberStatus};
use crate::message::{Epoch, LinkReport, NodeReport, Rejection};
use crate::publisher::State;

/// What others ask of the owner.
pub(crate) enum Command {
    Attach {
        authority: Authority,
        incoming: Incoming,
        outgoing: Outgoing,
        reply: oneshot::Sender<Result<(), SessionError>>,
    },
    Subscribers(oneshot::Sender<Vec<SubscriberStatus>>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Attach { .. } => "Attach",
            Self::Subscribers(_) => "Subscribers",
        })
    }
}

pub(crate) struct Owner {
    epoch: Epoch,
    states: watch::Sender<Option<Arc<State>>>,
    reports: broadcast::Sender<NodeReport>,
    sessions: JoinSet<()>,
    next_id: u64,
    known: BTreeMap<SessionId, Known>,
    events: mpsc::Sender<SessionEvent>,
    inbox: mpsc::Receiver<SessionEvent>,
}

struct Known {
    status: SubscriberStatus,
    report: NodeReport,
}

impl Owner {
    pub(crate) fn new(epoch: Epoch, reports: broadcast::Sender<NodeReport>) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS_QUEUED);
        Self {
            epoch,
            states: watch::Sender::new(None),
            reports,
            sessions: JoinSet::new(),
            next_id: 0,
            known: BTreeMap::new(),
            events,
            inbox,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut latest: watch::Receiver<Option<Publication>>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        loop {
            tokio::select! {
                // In random order, so that no busy sender starves another. Each arm is a
                // receive, which is cancel-safe.
                changed = latest.changed() => match changed {
                    Ok(()) => {
                        let publication = latest.borrow_and_update().clone();
                        publication.into_iter().for_each(|publication| self.publish(&publication));
                    }
                    Err(_) => return,
                },
                Some(event) = self.inbox.recv() => self.on_event(event),
                Some(ended) = self.sessions.join_next() => on_ended(ended),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
            }
        }
    }

    fn publish(&self, publication: &Publication) {
        let former = self.states.borrow().clone();
        let (state, rejections) = State::next(
            former.as_deref(),
            self.epoch,
            publication.generation,
            &publication.resources,
        );
        log_rejections(&rejections);
        self.states.send_replace(Some(Arc::new(state)));
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Attach { authority, incoming, outgoing, reply } => {
                let outcome = if self.sessions.len() < SESSIONS_MAX {
                    self.next_id += 1;
                    let session = Session {
                        id: SessionId(self.next_id),
                        authority,
                        incoming,
                        outgoing,
                        states: self.states.subscribe(),
                        events: self.events.clone(),
                    };
                    self.sessions.spawn(session.run());
                    Ok(())
                } else {
                    Err(SessionError::Full)
                };
                // The caller may have gone; its streams have ended with it.
                let _ = reply.send(outcome);
            }
            Command::Subscribers(reply) => {
                let all = self.known.values().map(|known| known.status.clone()).collect();
                let _ = reply.send(all);
            }
        }
    }

    fn on_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Ended(id) => {
                let Some(known) = self.known.remove(&id) else { return };
                // A node that is already back on another stream has not gone.
                if self.other_links(&known.status).is_none() {
                    self.report(NodeReport { connected: false, links: vec![], ..known.report });
                }
            }
            SessionEvent::Progress(id, status) => {
                let report = match self.known.remove(&id) {
                    Some(known) => known.report,
                    None => NodeReport {
                        node: status.node.clone(),
                        role: status.role,
                        connected: true,
                        links: self.other_links(&status).unwrap_or_default(),
                        nacks: Vec::new(),
                    },
                };
                let next = NodeReport { nacks: status.nacks.clone(), ..report.clone() };
                if next != report {
                    log_rejections(&added(&report.nacks, &next.nacks));
                    self.report(next.clone());
                }
                self.known.insert(id, Known { status, report: next });
            }
            SessionEvent::Report(id, links) => {
                let Some(known) = self.known.get_mut(&id) else { return };
                known.report.links = links;
                let report = known.report.clone();
                self.report(report);
            }
        }
    }

    /// The links that the same gateway reported on another stream, if it has one.
    ///
    /// Sidecars have no links and are many, so they are not searched for.
    fn other_links(&self, status: &SubscriberStatus) -> Option<Vec<LinkReport>> {
        if status.role.is_on_demand() {
            return None;
        }
        let same =
            |known: &&Known| known.status.node == status.node && known.status.role == status.role;
        self.known.values().find(same).map(|known| known.report.links.clone())
    }

    fn report(&self, report: NodeReport) {
        // Nobody may be listening, which is no fault.
        let _ = self.reports.send(report);
    }
}

/// The rejections that were not there before: what was said once is not said again.
fn added(former: &[Rejection], next: &[Rejection]) -> Vec<Rejection> {
    let former: BTreeSet<_> = former.iter().collect();
    next.iter().filter(|rejection| !former.contains(rejection)).cloned().collect()
}

fn log_rejections(rejections: &[Rejection]) {
    for rejection in rejections.iter().take(REJECTIONS_LOGGED) {
        tracing::warn!(
            kind = %rejection.kind,
            name = %rejection.name,
            reason = %rejection.reason,
            "a resource is not in use; its last good version stays"
        );
    }
    if rejections.len() > REJECTIONS_LOGGED {
        tracing::warn!(count = rejections.len(), "more resources are not in use");
    }
}

fn on_ended(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a discovery session panicked; only its stream is lost");
    }
}

/// Events of sessions that wait for the owner; a session then waits too.
const EVENTS_QUEUED: usize = 1024;

/// Streams of one controller at a time.
const SESSIONS_MAX: usize = 16_384;

/// Lines written for one change, so that a storm of bad objects is no storm of lines.
const REJECTIONS_LOGGED: usize = 16;
