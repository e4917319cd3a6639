//! The cluster controller: index, plan, publish, MCS and peers.
