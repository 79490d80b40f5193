"""``torch.compile(backend="perfkit")`` against eager torch and Inductor."""
