//! A small random generator for one worker: endpoint choice and weights.
//!
//! Not for secrets. xorshift64*, seeded by the caller.

/// Pseudo-random numbers of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// A generator with a seed; equal seeds give equal numbers.
    pub(crate) fn new(seed: u64) -> Self {
        // The state must not be zero; the constant is an arbitrary odd number.
        Self { state: seed ^ 0x9E37_79B9_7F4A_7C15 | 1 }
    }

    /// The next number, uniform over all values.
    pub(crate) fn next_u32(&mut self) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let mixed = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D);
        u32::try_from(mixed >> 32).unwrap_or(0)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from((u64::from(self.next_u32()) * bound) >> 32).unwrap_or(0)
    }
}
