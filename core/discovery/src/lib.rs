//! Controller to data plane protocol: sans-IO publisher and subscriber, gRPC and in-process shells.
