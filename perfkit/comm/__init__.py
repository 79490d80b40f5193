"""Process groups and collectives on torch.distributed: counted, checked, errors with names."""
