//! One writer swaps an immutable value; workers pin it for a request.
//!
//! Cloning an `Arc` for each request would make every worker touch the same counter. A
//! [`PinnedReader`] therefore keeps one `Arc` behind a worker-local `Rc`: pinning clones
//! the `Rc`, and the shared cell is only looked at (never written) to see whether the
//! value has changed.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::watch;

/// Holds the current value and wakes those who wait for a change.
pub struct SnapshotCell<T> {
    current: Arc<ArcSwap<T>>,
    changed: watch::Sender<u64>,
}

impl<T> SnapshotCell<T> {
    /// A cell with a first value.
    pub fn new(first: T) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(first)), changed: watch::Sender::new(0) }
    }

    /// Replaces the value in one swap and wakes the waiters.
    pub fn publish(&self, next: Arc<T>) {
        self.current.store(next);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The current value, for code off the request path.
    pub fn load(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Wakes on each swap; several swaps may come as one.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A reader for one worker.
    pub fn reader(&self) -> PinnedReader<T> {
        let mut cache = Cache::new(Arc::clone(&self.current));
        let value = Rc::new(Arc::clone(cache.load()));
        PinnedReader { cache, value }
    }
}

impl<T> Clone for SnapshotCell<T> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current), changed: self.changed.clone() }
    }
}

impl<T> fmt::Debug for SnapshotCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCell").finish_non_exhaustive()
    }
}

/// The second allocation is made once for each swap, not for each request.
type Shared<T> = Rc<Arc<T>>;

/// A worker's view of a [`SnapshotCell`].
pub struct PinnedReader<T> {
    cache: Cache<Arc<ArcSwap<T>>, Arc<T>>,
    value: Shared<T>,
}

impl<T> PinnedReader<T> {
    /// Pins the value that is current now.
    pub fn pin(&mut self) -> Pin<T> {
        let current = self.cache.load();
        if !Arc::ptr_eq(current, &self.value) {
            self.value = Rc::new(Arc::clone(current));
        }
        Pin { value: Rc::clone(&self.value) }
    }
}

impl<T> fmt::Debug for PinnedReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedReader").finish_non_exhaustive()
    }
}

/// A value that stays the same for as long as it is held.
pub struct Pin<T> {
    value: Shared<T>,
}

impl<T> Pin<T> {
    /// The shared value, for what must outlive the worker.
    pub fn shared(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T> Clone for Pin<T> {
    fn clone(&self) -> Self {
        Self { value: Rc::clone(&self.value) }
    }
}

impl<T> std::ops::Deref for Pin<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> fmt::Debug for Pin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_does_not_move_when_the_cell_does() {
        let cell = SnapshotCell::new(1);
        let mut reader = cell.reader();
        let before = reader.pin();
        cell.publish(Arc::new(2));
        let after = reader.pin();
        assert_eq!((*before, *after), (1, 2));
    }

    #[test]
    fn pinning_does_not_touch_the_shared_count() {
        let cell = SnapshotCell::new(1);
        let mut reader = cell.reader();
        let count = Arc::strong_count(reader.pin().shared());
        let pins: Vec<_> = (0..10).map(|_| reader.pin()).collect();
        assert_eq!(Arc::strong_count(pins[9].shared()), count);
    }
}
