"""The workloads: one file a subject, its swapco and peer versions side by side, so that they compare."""
