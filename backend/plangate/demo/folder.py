"""The demo's folder: its database, the sandbox's state, the secrets made for it, and the lock that keeps it to one."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from plangate.errors import StartRefused


class DemoSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """Everything secret about one demo, made once for its folder. `api_keys` are texts by name, once they exist."""

    signing_key: str
    stripe_secret_key: str
    stripe_account: str
    webhook_secret: str
    app_secret: str
    api_keys: dict[str, str] = {}
    is_seeded: bool = False


class DemoFolder:
    """One demo's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "plangate.sqlite3"
        self.log = path / "demo.log"
        self.sandbox_state = path / "sandbox.json"
        self._secrets = path / "secrets.json"
        self._announcement = path / "demo.json"

    def secrets(self) -> DemoSecrets:
        """The secrets of this folder, made now when there are none. Raises StartRefused when they are unreadable."""
        if not self._secrets.exists():
            made = DemoSecrets(
                signing_key=secrets.token_urlsafe(48),
                stripe_secret_key=f"sk_test_{secrets.token_hex(16)}",
                stripe_account=f"acct_{secrets.token_hex(8)}",
                webhook_secret=f"whsec_{secrets.token_hex(24)}",
                app_secret=f"absec_{secrets.token_hex(24)}",
            )
            self.save(made)
            return made
        try:
            return msgspec.json.decode(self._secrets.read_bytes(), type=DemoSecrets)
        except (OSError, msgspec.DecodeError):
            raise StartRefused(
                f"{self._secrets} cannot be read. Delete the folder {self.path} to start afresh."
            ) from None

    def save(self, made: DemoSecrets) -> None:
        """Keep the secrets, readable by their owner alone."""
        _write(self._secrets, msgspec.json.format(msgspec.json.encode(made), indent=2), mode=0o600)

    def announce(self, addresses: object) -> None:
        """Write demo.json: everything answers now."""
        text = json.dumps(msgspec.to_builtins(addresses), indent=2)
        _write(self._announcement, f"{text}\n".encode(), mode=0o600)

    def retract(self) -> None:
        """Remove demo.json: nothing answers (yet, or any more)."""
        self._announcement.unlink(missing_ok=True)


@contextmanager
def demo_folder(data: Path | None) -> Iterator[DemoFolder]:
    """The folder `data`, made when missing, or a temporary one that goes away afterwards; held by this process alone.

    Raises StartRefused when another demo holds it or it cannot be written.
    """
    if data is None:
        path = Path(tempfile.mkdtemp(prefix="plangate-demo-"))
        try:
            yield DemoFolder(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)
        return
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartRefused(f"{data} cannot be used: {error.strerror}. Choose another folder with --data.") from None
    try:
        _lock(lock, data)
        yield DemoFolder(data)
    finally:
        os.close(lock)


def _lock(lock: int, data: Path) -> None:
    import fcntl  # noqa: PLC0415 - the rest of the command line also works where this module does not exist

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StartRefused(
            f"Another demo is running on {data}. Stop it with Ctrl-C, or give this one its own: --data DIR --port N."
        ) from None


def _write(file: Path, content: bytes, *, mode: int) -> None:
    # Whoever waits for the file must never see half of it.
    part = file.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    part.replace(file)
