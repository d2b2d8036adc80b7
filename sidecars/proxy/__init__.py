"""The door: the only way from the network to the engine. TLS with evidence, strict HTTP, receipts."""
