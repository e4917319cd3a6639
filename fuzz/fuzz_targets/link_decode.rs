//! Any bytes to every decoder of the link protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isthmus_link::proto::exercise::decode(bytes));
