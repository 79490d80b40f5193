"""Frontends: C, Python and torch.fx programs become SCoPs."""
