"""The pictures of a report, drawn from manifests alone."""
