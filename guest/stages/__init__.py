"""The steps of the boot path, one module each; guest/boot.py puts them in their only order."""
