"""The door's receipts: what it signs, what it keeps for their owners, and the log they all go into."""
