//! Randomness for the shells: epochs and the jitter of reconnects.

/// 64 random bits.
pub(crate) fn word() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator works");
    u64::from_le_bytes(bytes)
}
