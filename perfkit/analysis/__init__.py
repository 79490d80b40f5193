"""Questions about a SCoP: dependences, footprints, bounds."""
