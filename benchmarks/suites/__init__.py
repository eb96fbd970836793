"""asv suites. Every setup warms the kernels and checks the answers that it is about to time."""
