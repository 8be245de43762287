"""Reports: pure functions of manifests."""
