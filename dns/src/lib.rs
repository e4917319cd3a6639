//! clusterset.local and cluster.local names, and forwarding for the rest.
