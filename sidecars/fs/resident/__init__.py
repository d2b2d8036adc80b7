"""Files decrypted ahead into memory of our own, which the kernel then reads without asking us."""
