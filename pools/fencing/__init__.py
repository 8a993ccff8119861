"""The fence of a node: stops its tenants' containers when it can no longer renew its lease in time (ADR 101)."""
