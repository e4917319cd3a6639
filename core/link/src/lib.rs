//! The east-west link protocol: sans-IO session, QUIC and TCP shells.
