//! Names that are not ours, from upstream servers or the cache.
//!
//! One question goes: cache, then the same question of another client that is already on
//! its way, then each upstream in turn over UDP with a fresh random port, a random id
//! and random letter case, and over TCP when the answer is cut or does not repeat the
//! case. What comes back is screened: only records that the question leads to are kept,
//! and nothing that leads into our own zones. When every upstream fails, an answer whose
//! time is over but not long over is given once more with a short time to live.
//!
//! A loop (an upstream that asks us) ends by itself: the question comes back while it is
//! on its way, waits for itself, and all of it ends at [`ATTEMPT_TIMEOUT`]. The crude
//! case, ourselves in the list of upstreams, is taken out at the start.
//!
//! Spec: RFC 5452, RFC 2308, RFC 8767, draft-vixie-dnsext-dns0x20.

mod cache;

mod exchange;

mod screen;

mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use isthmus_runtime::clock;
use tokio::sync::{Semaphore, watch};

use crate::answer::ZoneKind;
use crate::forward::cache::{Cache, Hit};
use crate::forward::exchange::{ExchangeError, exchange};
use crate::forward::screen::screen;
use crate::metrics::{Count, Metrics};

pub use crate::forward::upstream::{
    ResolvConfError, upstreams_from_resolv_conf, upstreams_of_file,
};

/// How names that are not ours are asked for.
#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// The servers, in order of preference; at most [`UPSTREAMS_MAX`] are used.
    pub upstreams: Vec<SocketAddr>,
    /// The addresses that this server listens on, which cannot be upstreams.
    pub own: Vec<SocketAddr>,
    /// How long one server may take for one question. Default: [`ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// Answers kept. Default: [`CACHE_ENTRIES_MAX`]; 0 turns the cache off.
    pub cache_entries: usize,
}

impl ForwardSettings {
    /// Settings with defaults for all but the servers.
    pub fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            own: Vec::new(),
            attempt_timeout: ATTEMPT_TIMEOUT,
            cache_entries: CACHE_ENTRIES_MAX,
        }
    }
}

/// A question for an upstream; equal ones share one exchange and one cache entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lookup {
    name: Name,
    kind: RecordType,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Lookup {
    /// A question of class IN.
    pub fn new(name: &Name, kind: RecordType) -> Self {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        Self { name, kind, dnssec_ok: false, checking_disabled: false }
    }

    /// Asks for DNSSEC records too, or for answers that do not validate.
    #[must_use]
    pub fn with_dnssec(self, dnssec_ok: bool, checking_disabled: bool) -> Self {
        Self { dnssec_ok, checking_disabled, ..self }
    }
}

/// What is known about a name that is not ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The response code of the upstream.
    pub code: ResponseCode,
    /// The records asked for, and the aliases that lead to them.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authorities: Vec<Record>,
}

/// A forwarded question without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The task that asked for several clients ended before it had an answer.
    #[error("the shared question for {name} was given up")]
    Abandoned {
        /// The name asked for.
        name: String,
    },
    /// No upstream gave an answer that could be used.
    #[error("none of {upstreams} upstreams answered {name}: {last}")]
    Exhausted {
        /// The name asked for.
        name: String,
        /// How many upstreams there are.
        upstreams: usize,
        /// What was wrong with the last one.
        last: String,
    },
    /// Too many questions are on their way already.
    #[error("{limit} questions are on their way already, so {name} was not asked")]
    Overloaded {
        /// The name asked for.
        name: String,
        /// How many may be on their way.
        limit: usize,
    },
    /// The name is in one of our zones, which are never forwarded.
    #[error("{name} is in a zone of this server and is never forwarded")]
    Ours {
        /// The name asked for.
        name: String,
    },
}

/// Asks upstream servers.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<SocketAddr>,
    attempt_timeout: Duration,
    /// The upstream that answered last, tried first.
    preferred: AtomicUsize,
    /// A leaf: held for one lookup or insertion, never across an await.
    cache: Mutex<Cache>,
    /// A leaf: held for one insertion or removal, never across an await.
    under_way: Mutex<HashMap<Lookup, watch::Receiver<Shared>>>,
    /// One permit for each question on its way, which has a socket.
    permits: Semaphore,
    metrics: Arc<Metrics>,
}

type Shared = Option<Result<Resolved, ForwardError>>;

impl Forwarder {
    /// A forwarder, or `None` when no upstream is left after taking out ourselves.
    pub fn new(settings: ForwardSettings, metrics: Arc<Metrics>) -> Option<Self> {
        let ForwardSettings { upstreams, own, attempt_timeout, cache_entries } = settings;
        let upstreams: Vec<_> = upstreams
            .into_iter()
            .filter(|to| !own.iter().any(|own| upstream::is_self(*own, *to)))
            .take(UPSTREAMS_MAX)
            .collect();
        if upstreams.is_empty() {
            return None;
        }
        Some(Self {
            upstreams,
            attempt_timeout,
            preferred: AtomicUsize::new(0),
            cache: Mutex::new(Cache::new(cache_entries)),
            under_way: Mutex::new(HashMap::new()),
            permits: Semaphore::new(IN_FLIGHT_MAX),
            metrics,
        })
    }

    /// Finds what is known about a name that is not ours.
    ///
    /// # Errors
    ///
    /// [`ForwardError`] when nobody answered and the cache has nothing, not even stale.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; others who wait for the same question then get
    /// [`ForwardError::Abandoned`].
    pub async fn lookup(&self, lookup: &Lookup) -> Result<Resolved, ForwardError> {
        if ZoneKind::of(&lookup.name).is_ours() {
            return Err(ForwardError::Ours { name: lookup.name.to_string() });
        }
        let stale = match lock(&self.cache).get(clock::now(), lookup) {
            Hit::Fresh(resolved) => {
                self.metrics.add(Count::ForwardCached);
                return Ok(resolved);
            }
            Hit::Stale(resolved) => Some(resolved),
            Hit::Miss => None,
        };
        let asked = self.shared(lookup);
        let outcome = match &stale {
            // With something in hand, clients are not kept waiting for slow upstreams.
            Some(_) => tokio::time::timeout(STALE_WAIT, asked)
                .await
                .unwrap_or_else(|_| Err(ForwardError::Abandoned { name: lookup.name.to_string() })),
            None => asked.await,
        };
        match (outcome, stale) {
            (Err(_), Some(resolved)) => {
                self.metrics.add(Count::ForwardStale);
                Ok(resolved)
            }
            // A server that says "I cannot" knows less than the stale answer.
            (Ok(Resolved { code, .. }), Some(resolved)) if !is_final(code) => {
                self.metrics.add(Count::ForwardStale);
                Ok(resolved)
            }
            (outcome, _) => outcome,
        }
    }

    /// Joins the same question if it is on its way, or asks it for all.
    ///
    /// Many copies of one question on their way would each be a chance to guess an id.
    async fn shared(&self, lookup: &Lookup) -> Result<Resolved, ForwardError> {
        let (sender, waiting) = {
            let mut under_way = lock(&self.under_way);
            match under_way.get(lookup) {
                Some(waiting) => (None, waiting.clone()),
                None => {
                    let (sender, waiting) = watch::channel(None);
                    under_way.insert(lookup.clone(), waiting.clone());
                    (Some(sender), waiting)
                }
            }
        };
        let Some(sender) = sender else {
            self.metrics.add(Count::ForwardShared);
            return wait(waiting, lookup).await;
        };
        let departure = Departure { under_way: &self.under_way, lookup };
        let outcome = self.ask_all(lookup).await;
        drop(departure);
        sender.send_replace(Some(outcome.clone()));
        outcome
    }

    async fn ask_all(&self, lookup: &Lookup) -> Result<Resolved, ForwardError> {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.add(Count::DroppedOverload);
            let name = lookup.name.to_string();
            return Err(ForwardError::Overloaded { name, limit: IN_FLIGHT_MAX });
        };
        let count = self.upstreams.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = String::new();
        let mut refusal = None;
        for attempt in 0..count.clamp(ATTEMPTS_MIN, ATTEMPTS_MAX) {
            let at = (first + attempt) % count;
            let Some(upstream) = self.upstreams.get(at) else { continue };
            match self.ask(*upstream, lookup).await {
                Ok(resolved) if is_final(resolved.code) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    self.metrics.add(Count::ForwardUpstream);
                    return Ok(resolved);
                }
                Ok(resolved) => refusal = Some(resolved),
                Err(error) => {
                    tracing::debug!(%upstream, %error, "upstream did not answer");
                    last = error.to_string();
                }
            }
        }
        if let Some(resolved) = refusal {
            return Ok(resolved);
        }
        self.metrics.add(Count::ForwardFailed);
        let name = lookup.name.to_string();
        Err(ForwardError::Exhausted { name, upstreams: count, last })
    }

    async fn ask(&self, upstream: SocketAddr, lookup: &Lookup) -> Result<Resolved, ExchangeError> {
        let message = exchange(upstream, lookup, self.attempt_timeout, &self.metrics).await?;
        let screened = screen(lookup, message).map_err(|error| {
            self.metrics.add(Count::UpstreamPoison);
            ExchangeError::Screened { error }
        })?;
        self.metrics.add_many(Count::UpstreamRecords, screened.removed);
        if let Some(lifetime) = screened.lifetime {
            let resolved = screened.resolved.clone();
            lock(&self.cache).insert(clock::now(), lookup.clone(), resolved, lifetime);
        }
        Ok(screened.resolved)
    }
}

/// Takes a question off the list when it ends, also when its task is dropped.
#[derive(Debug)]
struct Departure<'a> {
    under_way: &'a Mutex<HashMap<Lookup, watch::Receiver<Shared>>>,
    lookup: &'a Lookup,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        lock(self.under_way).remove(self.lookup);
    }
}

async fn wait(
    mut waiting: watch::Receiver<Shared>,
    lookup: &Lookup,
) -> Result<Resolved, ForwardError> {
    let abandoned = || ForwardError::Abandoned { name: lookup.name.to_string() };
    match waiting.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(abandoned())),
        Err(_) => Err(abandoned()),
    }
}

/// Whether a code says something about the name, and not about the server.
fn is_final(code: ResponseCode) -> bool {
    code == ResponseCode::NoError || code == ResponseCode::NXDomain
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both values stay consistent if a holder panics: each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one upstream may take for one question.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Upstreams used.
pub const UPSTREAMS_MAX: usize = 8;
/// Different questions on their way at once; each has a socket.
pub const IN_FLIGHT_MAX: usize = 1024;
/// Answers kept in the cache.
pub const CACHE_ENTRIES_MAX: usize = 10_000;

/// Spec: RFC 8767 section 5, the client response timer.
const STALE_WAIT: Duration = Duration::from_millis(1800);
const ATTEMPTS_MIN: usize = 2;
const ATTEMPTS_MAX: usize = 3;

#[cfg(test)]
mod tests;
