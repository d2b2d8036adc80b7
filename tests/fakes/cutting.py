"""A port that leads to a door and breaks connections in the middle, both sides at once."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_AT_ONCE = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: a reset, no farewell


@dataclass
class Cutting:
    """What happens there. Each connection to the door may carry as many bytes as `budgets` has for it next.

    None, and every connection behind the last budget, goes on for ever. `cut` is called before the ends of a broken one
    see it.
    """

    target: tuple[str, int]
    budgets: Iterator[int | None]
    cut: Callable[[], None] = lambda: None
    port: int = 0
    cuts: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self.target) as server:
            with self.lock:
                budget = next(self.budgets, None)
            back = threading.Thread(target=self._pump, args=(server, client, None))
            back.start()
            if self._pump(client, server, budget) and budget is not None:
                self.cuts.append(budget)
                self.cut()
                for end in (client, server):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            for end in (server, client):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, budget: int | None) -> bool:
        """Whether the budget was used up before the source had nothing more."""
        with suppress(OSError):
            while data := source.recv(16_384):
                if budget is not None:
                    data, budget = data[:budget], budget - len(data)
                target.sendall(data)
                if budget is not None and budget <= 0:
                    return True
        return False


@contextmanager
def cutting(
    host: str, port: int, budgets: Iterator[int | None], cut: Callable[[], None] = lambda: None
) -> Iterator[Cutting]:
    """The port, while it leads somewhere; every connection has ended behind it."""
    between = Cutting((host, port), budgets, cut)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        between.port = listener.getsockname()[1]
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=between.carry, args=(client,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield between
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()
