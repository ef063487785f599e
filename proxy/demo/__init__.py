"""The demonstration: a local provider, healthy agents, and one that runs away."""
