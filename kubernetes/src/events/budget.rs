//! How many events may be posted. Pure.
//!
//! An object that is edited a hundred times in a second, or a thousand routes that lose
//! one Gateway, must not fill etcd with events. What is over the bounds is counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::ObjectId;
use crate::events::Draft;

/// Counts events of the last minute.
#[derive(Debug, Default)]
pub struct Budget {
    window: Option<Instant>,
    of_object: BTreeMap<ObjectId, u32>,
    in_all: u32,
    dropped: u64,
}

impl Budget {
    /// Takes from `drafts` what may be posted now, in order; the rest is counted.
    pub fn take(&mut self, now: Instant, drafts: Vec<Draft>) -> Vec<Draft> {
        let is_over =
            self.window.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW);
        if is_over {
            self.window = Some(now);
            self.of_object.clear();
            self.in_all = 0;
        }
        let mut taken = Vec::new();
        for draft in drafts {
            let has_room = self.in_all < EVENTS_MAX
                && self.of_object.get(&draft.id).is_none_or(|count| *count < EVENTS_OF_OBJECT_MAX);
            if has_room {
                self.in_all += 1;
                *self.of_object.entry(draft.id.clone()).or_insert(0) += 1;
                taken.push(draft);
            } else {
                self.dropped = self.dropped.saturating_add(1);
            }
        }
        taken
    }

    /// How many events were over the bounds since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The time in which events are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Events of one object in a window.
pub const EVENTS_OF_OBJECT_MAX: u32 = 8;
/// Events of all objects in a window.
pub const EVENTS_MAX: u32 = 200;
