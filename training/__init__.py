"""Training of the networks that ship in ``preimage.zoo``; needs torch."""
