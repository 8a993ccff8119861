"""What the forms of the documents show: workloads, sync specs, and what admins set."""
