"""The agreement: what both sides of the trust boundary must compute alike."""
