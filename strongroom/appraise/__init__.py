"""Is genuine evidence acceptable? Policy in, verdict with every reason out."""
