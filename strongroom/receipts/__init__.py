"""Signed answers: what was asked and answered, by which model and engine, in which attested machine."""
