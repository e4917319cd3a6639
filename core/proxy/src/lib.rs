//! The shared L4 and L7 data plane.
