//! `isthmus demo`: three linked clusters on loopback addresses, real traffic, and a walk
//! through what happens to it when things break.
//!
//! Everything is a process of its own: each cluster (`isthmus up`), each sample
//! application (`isthmus demo-app`) and the wide area network between them
//! (`isthmus demo-wan`). This process starts them, sends the requests, watches the admin
//! endpoints, acts, and judges each step by what it observes from outside. It ends its
//! children by their ids and waits for them.
//!
//! # Flow
//!
//! 1. [`lock`], [`example`], [`preflight`]: one demo at a time, a folder with the
//!    manifests, addresses that are free.
//! 2. [`scenario`], [`process`], [`world`]: what runs, and the running processes.
//! 3. [`client`], [`traffic`], [`tally`]: requests and what came of them.
//! 4. [`admin`]: what the clusters say.
//! 5. [`step`], [`expect`], [`story`]: what is done, what must come of it, the walk.
//! 6. [`table`], [`view`]: plain text, or a live view.
//! 7. [`app`], [`wan`]: the other two kinds of process.

mod admin;
pub(crate) mod app;
mod client;
mod example;
mod expect;
mod lock;
mod preflight;
mod process;
mod scenario;
mod step;
mod story;
mod table;
mod tally;
mod traffic;
mod view;
pub(crate) mod wan;
mod world;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use isthmus_runtime::{Signal, Signals};
use tokio::sync::watch;

use self::admin::Observer;
use self::example::Folder;
use self::lock::Lock;
use self::scenario::Scenario;
use self::step::Step;
use self::story::{Progress, State, Story};
use self::traffic::{SharedBoard, Traffic};
use self::view::{Sources, View};
use self::world::World;

/// Arguments of `isthmus demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Walk through the steps without a live view, print a table, and fail if a step
    /// missed its expectation
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep settings, state and logs of the run in this folder, which must be empty
    /// [default: a temporary folder that is removed]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep: Option<PathBuf>,
    /// Use an edited copy of examples/demo instead of the one that is built in
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
///
/// Something could not be started, or a process ended by itself. A step that missed its
/// expectation is no error but a failure in the exit code.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: &DemoArgs) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let lock = Lock::take(lock::path())?;
    let folder = Folder::new(args.keep.as_deref())?;
    folder.fill(args.from.as_deref())?;
    let scenario = Scenario::load(folder.path())?;
    preflight::check(folder.path(), &scenario)?;
    let steps = step::steps(&scenario);
    let mut world = World::new(&folder, &scenario, lock);
    let board = SharedBoard::default();
    let (progress, shown) = watch::channel(vec![State::Waiting; steps.len()]);
    let live = !args.once && std::io::stdout().is_terminal();
    let outcome = {
        let walk = walk(&mut world, &scenario, &steps, Shared { board: &board, progress }, live);
        // The order does not matter: whichever ends first ends the demo.
        tokio::select! {
            outcome = walk => outcome,
            () = terminated(&mut signals) => Ok(()),
        }
    };
    world.end().await;
    let states = shown.borrow().clone();
    if states.iter().any(|state| *state != State::Waiting) {
        println!("\n{}", table::steps(&steps, &states));
        print!("{}", table::routes(&board.lock().total()));
    }
    outcome?;
    Ok(if succeeded(&states, live) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every step was as expected. Who watches live may leave before the end.
fn succeeded(states: &[State], live: bool) -> bool {
    states.iter().all(|state| match state {
        State::Done(verdict) => verdict.passed,
        State::Running { .. } | State::Waiting => live,
    })
}

/// What the walk fills.
struct Shared<'s> {
    board: &'s SharedBoard,
    progress: watch::Sender<Progress>,
}

/// Starts everything and walks through the steps; with a live view until the user leaves.
async fn walk(
    world: &mut World<'_>,
    scenario: &Scenario,
    steps: &[Step],
    shared: Shared<'_>,
    live: bool,
) -> Result<()> {
    println!("starting {} clusters", scenario.clusters.len());
    world.start().await?;
    let observer = Observer::start(&scenario.clusters);
    let board = shared.board.clone();
    let _traffic = Traffic::start(&scenario.traffic, &board, &observer.statuses());
    let sources = Sources {
        scenario: scenario.clone(),
        steps: steps.to_vec(),
        progress: shared.progress.subscribe(),
        statuses: observer.statuses(),
        board: board.clone(),
    };
    let statuses = observer.statuses();
    let mut story = Story { world, scenario, statuses, board, progress: shared.progress };
    if !live {
        let progress = sources.progress.clone();
        // The story ends first, always: the printer never does.
        return tokio::select! {
            outcome = story.run(steps) => outcome,
            never = print_progress(steps, progress) => never,
        };
    }
    let mut view = View::open()?;
    let all = async {
        story.run(steps).await?;
        story.watch().await
    };
    // The order does not matter: the user's wish and a failure both end the demo.
    tokio::select! {
        outcome = all => outcome,
        outcome = view.run(&sources) => outcome,
    }
}

/// Prints a line when a step begins; what came of it stands in the table.
async fn print_progress(steps: &[Step], mut progress: watch::Receiver<Progress>) -> Result<()> {
    let mut begun = 0;
    loop {
        let running =
            progress.borrow_and_update().iter().rposition(|state| *state != State::Waiting);
        while let Some(running) = running
            && begun <= running
        {
            println!("step {} of {}: {}", begun + 1, steps.len(), steps[begun].title);
            begun += 1;
        }
        progress.changed().await?;
    }
}

/// Resolves when this process is told to end.
async fn terminated(signals: &mut Signals) {
    while signals.next().await != Signal::Terminate {}
}

/// Resolves when standard input ends, if the process is to end with its parent; else
/// never. The read is on a thread of its own, which ends with the process.
fn parent_gone(wanted: bool) -> Result<impl Future<Output = ()>> {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let keep = if wanted {
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop(sender);
        })?;
        None
    } else {
        Some(sender)
    };
    Ok(async move {
        let _keep = keep;
        let _ = receiver.await;
    })
}
