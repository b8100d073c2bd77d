"""Ports for processes that meet: one that is free now, and that nothing takes before it is listened on."""

import random
import socket

BELOW_OUTGOING = range(12_000, 32_000)
"""Linux gives outgoing connections, and whoever asks for any port, those from 32768 on."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    chance = random.SystemRandom()  # tests seed the other generators, and would all begin with the same port
    while True:
        port = chance.choice(BELOW_OUTGOING)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
