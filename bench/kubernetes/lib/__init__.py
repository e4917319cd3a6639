"""What the benchmark in a cluster is made of."""
