//! The gateway: ingress (north-south) and east-west.
