"""Sealed trees brought here from the stores that carry them: ciphertext, in parts, as often as it takes."""
