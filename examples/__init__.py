"""Programs that use preimage; each runs alone."""
