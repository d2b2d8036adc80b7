"""Devices and kernel interfaces, each behind one module that knows it by path."""
