"""The attested certificate: evidence inside X.509, and when a peer's certificate is accepted."""
