"""`make bench-keys`: what a key costs, from the broker and from the local socket. A table and one JSON line each."""

import sys

from bench import broker, keysock


def main() -> int:
    return max(broker.main([]), keysock.main())


if __name__ == "__main__":
    sys.exit(main())
