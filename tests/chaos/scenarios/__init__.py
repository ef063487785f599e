"""The faults, one module per group; importing this registers all of them."""
