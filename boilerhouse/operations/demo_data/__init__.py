"""Demo data: five pools, 24 tenants and a week of their history, as rows without containers.

For pictures of the pages and for looking around. Nothing runs: no process but ``web`` starts while they are there
(``core.deployment.check_node``), so nothing is repaired, saved or claimed.
"""
