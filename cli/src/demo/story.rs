//! Walks through the steps: acts, waits for what must come, holds it, counts, judges.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use isthmus_runtime::clock;
use tokio::sync::watch;

use super::admin::{self, Statuses};
use super::expect::Seen;
use super::scenario::Scenario;
use super::step::{Action, Step};
use super::tally::Tally;
use super::traffic::{SharedBoard, TIMEOUT};
use super::world::World;

/// How far the story is, one entry for each step.
pub(crate) type Progress = Vec<State>;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// It is over.
    Done(Verdict),
    /// It is under way.
    Running {
        /// When it began.
        since: Instant,
        /// What is still missing.
        unmet: Vec<String>,
    },
    /// It comes later.
    Waiting,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// Whether everything was as expected.
    pub(crate) passed: bool,
    /// How long it took until everything was as expected.
    pub(crate) took: Duration,
    /// What was not as expected.
    pub(crate) unmet: Vec<String>,
    /// The requests that were started in the step.
    pub(crate) tally: Tally,
}

/// What the story works with.
#[derive(Debug)]
pub(crate) struct Story<'s, 'd> {
    /// The processes.
    pub(crate) world: &'s mut World<'d>,
    /// What they are.
    pub(crate) scenario: &'s Scenario,
    /// What the clusters say.
    pub(crate) statuses: watch::Receiver<Statuses>,
    /// What came of requests.
    pub(crate) board: SharedBoard,
    /// Where the progress is shown.
    pub(crate) progress: watch::Sender<Progress>,
}

impl Story<'_, '_> {
    /// Walks through the steps and stops at the first that fails, because what follows
    /// it would say nothing.
    ///
    /// # Errors
    ///
    /// An action failed, or a process ended by itself.
    pub(crate) async fn run(&mut self, steps: &[Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            let verdict = self.step(index, step).await;
            let verdict = verdict.with_context(|| format!("step {}: {}", index + 1, step.title))?;
            let passed = verdict.passed;
            self.progress.send_modify(|progress| progress[index] = State::Done(verdict));
            if !passed {
                break;
            }
        }
        Ok(())
    }

    /// Watches the processes until one fails.
    pub(crate) async fn watch(&mut self) -> Result<()> {
        loop {
            self.world.check()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn step(&mut self, index: usize, step: &Step) -> Result<Verdict> {
        let since = clock::now();
        let before = self.statuses.borrow().clone();
        let number = self.board.lock().begin_step();
        self.show(index, State::Running { since, unmet: Vec::new() });
        for action in &step.actions {
            self.act(action).await?;
        }
        let (reached, mut unmet) = self.reach(index, step, since, &before).await?;
        // Requests from here on belong to the next step; those of this one have as long
        // as a user waits.
        self.board.lock().begin_step();
        let tally = self.counted(number).await;
        if let Some(max) = step.failures_max
            && tally.failed_total() > max
        {
            unmet.push(format!("{} requests failed, allowed are {max}", tally.failed_total()));
        }
        let took = reached.unwrap_or_else(clock::now).saturating_duration_since(since);
        Ok(Verdict { passed: unmet.is_empty(), took, unmet, tally })
    }

    /// Waits until everything has been as expected for as long as the step holds it.
    async fn reach(
        &mut self,
        index: usize,
        step: &Step,
        since: Instant,
        before: &Statuses,
    ) -> Result<(Option<Instant>, Vec<String>)> {
        let mut reached: Option<Instant> = None;
        loop {
            self.world.check()?;
            let now = clock::now();
            let unmet: Vec<String> = {
                let statuses = self.statuses.borrow();
                let board = self.board.lock();
                let seen = Seen { now, statuses: &statuses, before, board: &board };
                step.expect.iter().filter_map(|expect| expect.unmet(seen)).collect()
            };
            if unmet.is_empty() {
                let at = *reached.get_or_insert(now);
                if now.saturating_duration_since(at) >= step.hold {
                    return Ok((reached, unmet));
                }
            } else {
                reached = None;
                if now.saturating_duration_since(since) > step.within {
                    return Ok((None, unmet));
                }
            }
            self.show(index, State::Running { since, unmet });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The tally of a step, once none of its requests is in flight.
    async fn counted(&self, step: usize) -> Tally {
        let begun = clock::now();
        while self.board.lock().in_flight(step) > 0
            && clock::now().saturating_duration_since(begun) < TIMEOUT + LOOK_EVERY
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.board.lock().step_total(step)
    }

    async fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Kill(name) => self.world.kill_cluster(name).await,
            Action::Rotate(name) => {
                let cluster = self.scenario.clusters.iter().find(|cluster| cluster.name == *name);
                admin::rotate(cluster.context("no such cluster")?.admin).await
            }
            Action::Start(name) => self.world.start_cluster(name),
            Action::Wan(command) => self.world.wan(command).await,
        }
    }

    fn show(&self, index: usize, state: State) {
        self.progress.send_modify(|progress| progress[index] = state);
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
