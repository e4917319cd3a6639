"""The benchmarks' parts: harness, clusters, peers, loads, and one module for each benchmark."""
