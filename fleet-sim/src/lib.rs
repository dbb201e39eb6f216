//! The simulated fleet, the test kit that starts real servers, and the benchmarks.
