//! The sidecar: inbound and outbound proxies of one workload.
