//! Trace and span ids, and the worker-local source of them.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// The id of one trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The id, unless all bytes are zero.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        NonZeroU128::new(u128::from_be_bytes(bytes)).map(Self)
    }

    /// The id as OTLP carries it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// The low 64 bits, which are random in every id scheme.
    pub(crate) fn low(self) -> u64 {
        self.0.get() as u64
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The id of one span; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// The id, unless all bytes are zero.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        NonZeroU64::new(u64::from_be_bytes(bytes)).map(Self)
    }

    /// The id as OTLP carries it.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A worker's own source of ids: xoshiro256++ from a seed, no lock, no system call.
///
/// Ids must be unique, not secret: nothing is authorised by knowing one.
#[derive(Clone)]
pub struct IdSource {
    state: [u64; 4],
}

impl IdSource {
    /// A source whose ids follow from the seed alone.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        // Each word passes through splitmix64, so that no seed gives the all-zero state
        // in which xoshiro stays for ever.
        let mut carry = 0;
        for (word, chunk) in state.iter_mut().zip(seed.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            carry = splitmix(carry ^ u64::from_le_bytes(bytes));
            *word = carry;
        }
        Self { state }
    }

    /// A source of the same family that shares no ids with this one, for recorder `index`.
    pub fn for_worker(seed: [u8; 32], index: u64) -> Self {
        let mut source = Self::from_seed(seed);
        for word in &mut source.state {
            *word = splitmix(*word ^ splitmix(index));
        }
        source
    }

    /// A new trace id.
    pub fn trace_id(&mut self) -> TraceId {
        loop {
            if let Some(id) = NonZeroU128::new(self.random()) {
                return TraceId(id);
            }
        }
    }

    /// A new span id.
    pub fn span_id(&mut self) -> SpanId {
        loop {
            if let Some(id) = NonZeroU64::new(self.next()) {
                return SpanId(id);
            }
        }
    }

    /// 128 random bits, for a request id.
    pub fn random(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource").finish_non_exhaustive()
    }
}

fn splitmix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn workers_share_no_ids_and_a_seed_repeats_its_own() {
        let mut seen = BTreeSet::new();
        for worker in 0..8 {
            let mut ids = IdSource::for_worker([0; 32], worker);
            for _ in 0..1000 {
                assert!(seen.insert(ids.trace_id()));
            }
        }
        let mut first = IdSource::for_worker([0; 32], 3);
        let mut second = IdSource::for_worker([0; 32], 3);
        assert_eq!(first.span_id(), second.span_id());
    }
}
