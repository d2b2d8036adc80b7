"""Is the evidence genuine? Chains, signatures and bindings; every failure raises."""
