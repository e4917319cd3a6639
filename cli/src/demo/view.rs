//! The live view on a terminal: clusters, links, routes and steps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use isthmus_runtime::clock;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::{mpsc, watch};

use super::admin::{Peer, Statuses};
use super::scenario::Scenario;
use super::step::Step;
use super::story::{Progress, State};
use super::table::{counts, duration};
use super::tally::Board;
use super::traffic::SharedBoard;

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The scenario.
    pub(crate) scenario: Scenario,
    /// The steps.
    pub(crate) steps: Vec<Step>,
    /// How far the story is.
    pub(crate) progress: watch::Receiver<Progress>,
    /// What the clusters say.
    pub(crate) statuses: watch::Receiver<Statuses>,
    /// What came of requests.
    pub(crate) board: SharedBoard,
}

/// The terminal in full-screen mode; restored when dropped, and on a panic.
#[derive(Debug)]
pub(crate) struct View {
    terminal: DefaultTerminal,
    keys: Keys,
}

impl View {
    /// Takes the terminal.
    pub(crate) fn open() -> Result<Self> {
        // It installs a panic hook that restores the terminal.
        let terminal = ratatui::try_init().context("cannot take the terminal; use --once")?;
        let keys = Keys::start();
        if keys.is_err() {
            ratatui::restore();
        }
        Ok(Self { terminal, keys: keys? })
    }

    /// Draws until the user wants to leave.
    pub(crate) async fn run(&mut self, sources: &Sources) -> Result<()> {
        loop {
            self.terminal.draw(|frame| draw(frame, sources, clock::now()))?;
            // The order does not matter: a redraw may come early.
            tokio::select! {
                () = tokio::time::sleep(REDRAW_EVERY) => {}
                key = self.keys.pressed.recv() => match key {
                    Some(Key::Resize) => {}
                    Some(Key::Quit) | None => return Ok(()),
                },
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Resize,
}

/// Reads keys on a thread, because a read of the terminal cannot be cancelled.
#[derive(Debug)]
struct Keys {
    pressed: mpsc::Receiver<Key>,
    stop: Arc<AtomicBool>,
}

impl Keys {
    fn start() -> io::Result<Self> {
        let (sender, pressed) = mpsc::channel(KEYS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let key = match event::poll(KEY_POLL) {
                    Ok(false) => continue,
                    Ok(true) => event::read().ok().and_then(|event| key(&event)),
                    Err(_) => return,
                };
                if let Some(key) = key
                    && sender.blocking_send(key).is_err()
                {
                    return;
                }
            }
        })?;
        Ok(Self { pressed, stop })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// In raw mode Ctrl-C is a key and no signal.
fn key(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resize),
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let quits = matches!(key.code, KeyCode::Esc | KeyCode::Char('q'))
                || (control && key.code == KeyCode::Char('c'));
            quits.then_some(Key::Quit)
        }
        Event::Key(_)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Mouse(_)
        | Event::Paste(_) => None,
    }
}

fn draw(frame: &mut Frame<'_>, sources: &Sources, now: Instant) {
    let statuses = sources.statuses.borrow();
    let progress = sources.progress.borrow();
    let tall = |count: usize| u16::try_from(count + 3).unwrap_or(u16::MAX);
    let rows = Layout::vertical([
        Constraint::Length(tall(sources.scenario.clusters.len())),
        Constraint::Length(tall(sources.scenario.paths.len())),
        Constraint::Length(tall(sources.scenario.traffic.len())),
        Constraint::Min(tall(sources.steps.len())),
        Constraint::Length(1),
    ]);
    let [clusters, links, routes, steps, help] = rows.areas(frame.area());
    draw_clusters(frame, clusters, &sources.scenario, &statuses);
    draw_links(frame, links, &statuses);
    draw_routes(frame, routes, &sources.scenario, &sources.board.lock(), now);
    draw_steps(frame, steps, &sources.steps, &progress, now);
    let over = !progress.iter().any(|state| matches!(state, State::Running { .. }));
    let text = if over { "the walk is over, traffic goes on - q quits" } else { "q quits" };
    frame.render_widget(Paragraph::new(text).dim(), help);
}

fn draw_clusters(frame: &mut Frame<'_>, area: Rect, scenario: &Scenario, statuses: &Statuses) {
    let rows = scenario.clusters.iter().map(|cluster| {
        let status = statuses.get(&cluster.name).and_then(Option::as_ref);
        let state = match status {
            Some(_) => Cell::from("running").green(),
            None => Cell::from("no answer").red(),
        };
        let services = status.and_then(|status| status.services.as_ref()).map_or(0, Vec::len);
        let apps: Vec<&str> = cluster.apps.iter().map(|app| app.service.as_str()).collect();
        Row::new([
            Cell::from(cluster.name.as_str()),
            state,
            Cell::from(services.to_string()),
            Cell::from(apps.join(", ")),
        ])
    });
    let widths = [20, 12, 10, 40].map(Constraint::Length);
    let head = ["cluster", "state", "services", "applications"];
    frame.render_widget(titled(Table::new(rows, widths), "clusters", &head), area);
}

/// Each link once, as the end with the smaller name that answers sees it.
fn links(statuses: &Statuses) -> Vec<(&str, &Peer)> {
    let mut found: Vec<(&str, &Peer)> = Vec::new();
    for (name, status) in statuses {
        for peer in status.iter().flat_map(|status| &status.peers) {
            let known = found.iter().any(|(a, b)| b.cluster == *name && *a == peer.cluster);
            if !known {
                found.push((name, peer));
            }
        }
    }
    found
}

fn draw_links(frame: &mut Frame<'_>, area: Rect, statuses: &Statuses) {
    let rows = links(statuses).into_iter().map(|(name, peer)| {
        let state = peer.state.clone().unwrap_or_else(|| "unknown".to_owned());
        let state = if peer.is_up() { Cell::from(state).green() } else { Cell::from(state).red() };
        let transport = peer.transport.clone().unwrap_or_else(|| "-".to_owned());
        let quic = transport == "quic";
        let transport = Cell::from(transport);
        let rtt = peer.rtt_micros.map_or_else(
            || "-".to_owned(),
            |micros| format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        );
        let loss = peer.loss_permille.map(|permille| format!("{:.1} %", permille / 10.0));
        let loss = loss.unwrap_or_else(|| "-".to_owned());
        Row::new([
            Cell::from(format!("{name} - {}", peer.cluster)),
            state,
            if quic { transport } else { transport.yellow() },
            Cell::from(rtt),
            Cell::from(loss),
        ])
    });
    let widths = [36, 10, 10, 12, 10].map(Constraint::Length);
    let head = ["link", "state", "transport", "rtt", "loss"];
    frame.render_widget(titled(Table::new(rows, widths), "links", &head), area);
}

fn draw_routes(
    frame: &mut Frame<'_>,
    area: Rect,
    scenario: &Scenario,
    board: &Board,
    now: Instant,
) {
    let total = board.total();
    let rows = scenario.traffic.iter().map(|flow| {
        let recent = board.recent(&flow.name, now, Duration::from_secs(1));
        let (served, failed) = total
            .get(&flow.name)
            .map(|tally| (counts(&tally.served), tally.failed_total()))
            .unwrap_or_default();
        let errors = Cell::from(failed.to_string());
        Row::new([
            Cell::from(flow.name.as_str()),
            Cell::from(recent.served_total().to_string()),
            Cell::from(recent.served.keys().cloned().collect::<Vec<_>>().join(", ")),
            if failed == 0 { errors } else { errors.red() },
            Cell::from(served),
        ])
    });
    let widths = [22, 8, 24, 8, 50].map(Constraint::Length);
    let head = ["route", "req/s", "served by now", "errors", "served so far"];
    frame.render_widget(titled(Table::new(rows, widths), "requests", &head), area);
}

fn draw_steps(
    frame: &mut Frame<'_>,
    area: Rect,
    steps: &[Step],
    progress: &Progress,
    now: Instant,
) {
    let mut lines = Vec::new();
    for (index, (step, state)) in steps.iter().zip(progress).enumerate() {
        let name = format!("{}. {}", index + 1, step.title);
        let (mark, text, style) = match state {
            State::Done(verdict) if verdict.passed => {
                let failed = verdict.tally.failed_total();
                let took = duration(verdict.took);
                ("+", format!("after {took}, {failed} failed"), Style::new().fg(Color::Green))
            }
            State::Done(verdict) => ("x", verdict.unmet.join("; "), Style::new().fg(Color::Red)),
            State::Running { since, unmet } => {
                let missing = unmet.first().cloned().unwrap_or_else(|| "holding".to_owned());
                let since = duration(now.saturating_duration_since(*since));
                (">", format!("{since}: {missing}"), Style::new().add_modifier(Modifier::BOLD))
            }
            State::Waiting => (" ", String::new(), Style::new().dim()),
        };
        let head = Span::styled(format!("{mark} {name:<56}"), style);
        lines.push(Line::from(vec![head, Span::raw(text)]));
    }
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("steps")), area);
}

fn titled<'t>(table: Table<'t>, title: &'t str, head: &[&'t str]) -> Table<'t> {
    let head = Row::new(head.iter().copied().map(Cell::from)).dim();
    table.header(head).block(Block::bordered().title(title))
}

const REDRAW_EVERY: Duration = Duration::from_millis(250);
const KEY_POLL: Duration = Duration::from_millis(100);
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::admin::Status;
    use super::super::step::steps;
    use super::super::tally::Outcome;
    use super::*;

    #[test]
    fn the_view_shows_clusters_links_routes_and_steps() {
        let scenario = Scenario::parse(super::super::example::FILES[0].1).unwrap();
        let now = clock::now();
        let board = SharedBoard::default();
        let ticket = board.lock().start("ingress /cart", now);
        board.lock().finish(ticket, now, Outcome::Served("aws-us-east".to_owned()));
        let peer = Peer {
            cluster: "onprem".to_owned(),
            state: Some("up".to_owned()),
            transport: Some("tcp".to_owned()),
            rtt_micros: Some(12_345),
            loss_permille: Some(7.0),
        };
        let status = Arc::new(Status { peers: vec![peer], ..Status::default() });
        let statuses = Statuses::from([("aws-us-east".to_owned(), Some(status))]);
        let steps = steps(&scenario);
        let mut progress = vec![State::Waiting; steps.len()];
        progress[0] = State::Running { since: now, unmet: vec!["onprem is away".to_owned()] };
        let sources = Sources {
            scenario,
            steps,
            progress: watch::channel(progress).1,
            statuses: watch::channel(statuses).1,
            board,
        };
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| draw(frame, &sources, now)).unwrap();
        let screen = terminal.backend().to_string();
        for text in [
            "aws-us-east - onprem",
            "tcp",
            "12.3 ms",
            "0.7 %",
            "aws-us-east 1",
            "> 1. start and link three clusters",
            "0 ms: onprem is away",
            "no answer",
        ] {
            assert!(screen.contains(text), "{text} is missing in\n{screen}");
        }
    }

    #[test]
    fn a_link_is_shown_once() {
        let peer = |cluster: &str| Peer { cluster: cluster.to_owned(), ..Peer::default() };
        let status = |peer_name| {
            Some(Arc::new(Status { peers: vec![peer(peer_name)], ..Status::default() }))
        };
        let both = Statuses::from([("a".to_owned(), status("b")), ("b".to_owned(), status("a"))]);
        assert_eq!(links(&both).len(), 1);
    }
}
