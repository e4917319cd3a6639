//! Any bytes as operations on the link session and the transport selector.
#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    isthmus_link::proto::exercise::operate(Instant::now(), bytes);
});
