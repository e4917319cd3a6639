//! The budget of flow-control windows of all connections together.

use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::WINDOW_MIN;

/// Bytes that have not been given to a connection.
#[derive(Debug, Clone)]
pub(crate) struct WindowBudget {
    left: Arc<Mutex<u64>>,
}

/// A connection's share; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct WindowGrant {
    budget: WindowBudget,
    pub(crate) bytes: u64,
    taken: u64,
}

impl WindowBudget {
    pub(crate) fn new(total: u64) -> Self {
        Self { left: Arc::new(Mutex::new(total)) }
    }

    /// At most `wanted`, at most half of what is left, at least [`WINDOW_MIN`].
    pub(crate) fn grant(&self, wanted: u64) -> WindowGrant {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = wanted.min(*left / 2).max(WINDOW_MIN);
        let taken = bytes.min(*left);
        *left -= taken;
        WindowGrant { budget: self.clone(), bytes, taken }
    }
}

impl Drop for WindowGrant {
    fn drop(&mut self) {
        let mut left = self.budget.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_as_the_budget_is_used_and_come_back() {
        let budget = WindowBudget::new(100 << 20);
        let first = budget.grant(200 << 20);
        assert_eq!(first.bytes, 50 << 20);
        let many: Vec<_> = (0..20).map(|_| budget.grant(200 << 20)).collect();
        assert_eq!(many[19].bytes, WINDOW_MIN);
        drop(many);
        drop(first);
        assert_eq!(*budget.left.lock().unwrap(), 100 << 20);
    }
}
