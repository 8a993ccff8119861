"""The fields of document forms: workloads, sync specs, and deployment settings."""
