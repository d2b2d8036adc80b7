"""The inference engine behind the door: its connections, its life and its canary."""
