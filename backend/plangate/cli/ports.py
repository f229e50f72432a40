"""Says before a server starts that its port is taken, and how to go on."""

import errno
import socket

from plangate.errors import StartRefused


def refuse_taken_port(host: str, port: int) -> None:
    """Raise StartRefused when nothing could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartRefused(
                    f"Port {port} is taken: something else listens on {host}:{port}. Choose another with --port."
                ) from None
            raise StartRefused(
                f"{host}:{port} cannot be used: {error.strerror}. Choose others with --host, --port."
            ) from None
