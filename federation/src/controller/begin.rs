//! What a controller begins with.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::ControllerError;
use crate::proto::start_epoch;
use crate::state::{FILE_VERSION, SavedState, StateFile};

/// What to begin with: what was saved, or a new state; with the epoch of this start.
pub(super) fn begin(
    file: &StateFile,
    wall: SystemTime,
) -> Result<(SavedState, Duration), ControllerError> {
    let seconds = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut random = [0; 40];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| ControllerError::Random)?;
    let (mut secret, mut word) = ([0; 32], [0; 8]);
    secret.copy_from_slice(&random[..32]);
    word.copy_from_slice(&random[32..]);
    let word = u64::from_le_bytes(word);
    match file.load() {
        Some(mut saved) => {
            // A clock that went back makes the age unknown, which is as good as old.
            let age =
                seconds.checked_sub(saved.saved_at).map_or(Duration::MAX, Duration::from_secs);
            saved.epoch = start_epoch(Some(saved.epoch), seconds, word);
            Ok((saved, age))
        }
        None => {
            let saved = SavedState {
                version: FILE_VERSION,
                epoch: start_epoch(None, seconds, word),
                secret,
                saved_at: seconds,
                vips: Vec::new(),
                links: BTreeMap::new(),
                peers: BTreeMap::new(),
            };
            Ok((saved, Duration::ZERO))
        }
    }
}
