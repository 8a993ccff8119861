"""The permissions table: which role may call which API operation. The authorisation tests check every route against
it."""

from __future__ import annotations

from boilerhouse.core.models import Role

ADMIN, OPERATOR, VIEWER, TENANT = Role.ADMIN, Role.OPERATOR, Role.VIEWER, Role.TENANT
STAFF_READ, STAFF_WRITE = {ADMIN, OPERATOR, VIEWER}, {ADMIN, OPERATOR}
OWN_READ, OWN_WRITE = {*STAFF_READ, TENANT}, {*STAFF_WRITE, TENANT}
OWN_PRIVATE = {ADMIN, OPERATOR, TENANT}

MAY: dict[str, dict[str, set[Role]]] = {
    "workloads": {"GET": STAFF_READ, "POST": STAFF_WRITE},
    "workloads/*": {"GET": STAFF_READ, "PUT": STAFF_WRITE, "DELETE": STAFF_WRITE},
    "workloads/*/refresh": {"POST": STAFF_WRITE},
    "workloads/*/versions": {"GET": STAFF_READ},
    "pools": {"GET": STAFF_READ, "POST": STAFF_WRITE},
    "pools/*": {"GET": STAFF_READ, "PUT": STAFF_WRITE, "DELETE": STAFF_WRITE},
    "pools/*/scale": {"POST": STAFF_WRITE},
    "pools/*/pause": {"POST": STAFF_WRITE},
    "pools/*/resume": {"POST": STAFF_WRITE},
    "pools/*/drain": {"POST": STAFF_WRITE},
    "pools/*/usage": {"GET": STAFF_READ},
    "pools/*/containers": {"GET": STAFF_READ},
    "sync-specs": {"GET": STAFF_READ, "POST": STAFF_WRITE},
    "sync-specs/*": {"GET": STAFF_READ, "PUT": STAFF_WRITE, "DELETE": STAFF_WRITE},
    "sync-specs/*/status": {"GET": STAFF_READ},
    "sync-specs/*/probes": {"GET": STAFF_READ},
    "sync-specs/*/probe": {"POST": STAFF_WRITE},
    "sync-specs/*/trigger": {"POST": STAFF_WRITE},
    "sync-runs": {"GET": STAFF_READ},
    "sync-runs/*": {"GET": STAFF_READ},
    "sync-runs/*/cancel": {"POST": STAFF_WRITE},
    "tenants": {"GET": STAFF_READ},
    "tenants/*/claim": {"POST": OWN_WRITE},
    "tenants/*/release": {"POST": OWN_WRITE},
    "tenants/*/status": {"GET": OWN_READ},
    "tenants/*/sync": {"POST": OWN_WRITE},
    "tenants/*/heartbeat": {"POST": OWN_WRITE},
    "tenants/*/network": {"GET": OWN_READ, "PUT": OWN_WRITE},
    "tenants/*/exec": {"POST": OWN_PRIVATE},
    "tenants/*/logs": {"GET": OWN_PRIVATE},
    "tenants/*/runs": {"GET": OWN_READ},
    "tenants/*/backups": {"GET": OWN_READ},
    "tenants/*/backups/*/restore": {"POST": OWN_WRITE},
    "tenants/*/state": {"DELETE": OWN_WRITE},
    "tenants/*/forget-state": {"POST": {ADMIN}},
    "containers": {"GET": STAFF_READ},
    "containers/*": {"GET": STAFF_READ, "DELETE": STAFF_WRITE},
    "containers/*/exec": {"POST": STAFF_WRITE},
    "containers/*/logs": {"GET": STAFF_WRITE},
    "credentials": {"GET": {ADMIN}, "POST": {ADMIN}},
    "credentials/*": {"GET": {ADMIN}, "PUT": {ADMIN}, "DELETE": {ADMIN}},
    "registry-credentials": {"GET": {ADMIN}, "POST": {ADMIN}},
    "registry-credentials/*": {"GET": {ADMIN}, "PUT": {ADMIN}, "DELETE": {ADMIN}},
    "notifications": {"GET": {ADMIN}, "POST": {ADMIN}},
    "notifications/*": {"GET": {ADMIN}, "PUT": {ADMIN}, "DELETE": {ADMIN}},
    "notifications/*/test": {"POST": {ADMIN}},
    "notifications/*/deliveries": {"GET": {ADMIN}},
    "notifications/*/deliveries/*/resend": {"POST": {ADMIN}},
    "api-keys": {"GET": {ADMIN}, "POST": {ADMIN}},
    "api-keys/*": {"DELETE": {ADMIN}},
    "api-keys/*/rotate": {"POST": {ADMIN}},
    "settings": {"GET": {ADMIN}, "PUT": {ADMIN}},
    "audit": {"GET": {ADMIN}},
    "usage": {"GET": {ADMIN}},
    "events": {"GET": OWN_READ},
    "events/stream": {"GET": OWN_READ},
    "stats": {"GET": STAFF_READ},
    "metrics": {"GET": STAFF_READ},
}
PUBLIC = {"health", "health/ready", "openapi.json", "docs"}
"""Routes that want no key."""
