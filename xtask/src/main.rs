//! Repository checks that CI runs.

fn main() {}
