"""The heap's protocol: sanitizers, model check, and random trials with real processes."""
