"""`python -m plangate.sandbox --port 8789`: the stand-in alone, for tests and for trying things out."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from .app import create_app
from .config import SandboxConfig


def main() -> None:
    """Serve one account on the loopback until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m plangate.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=8789)
    parser.add_argument("--secret-key", default="sk_test_sandbox")
    parser.add_argument("--account", default="acct_sandbox")
    parser.add_argument("--webhook-url")
    parser.add_argument("--webhook-secret", default="whsec_sandbox")
    parser.add_argument("--clock-url")
    parser.add_argument("--clock-key")
    parser.add_argument("--state", type=Path, help="keep everything in this file between runs")
    given = parser.parse_args()
    config = SandboxConfig(
        secret_key=given.secret_key,
        account_id=given.account,
        public_url=f"http://127.0.0.1:{given.port}",
        webhook_url=given.webhook_url,
        webhook_secret=given.webhook_secret,
        clock_url=given.clock_url,
        clock_key=given.clock_key,
        state_path=given.state,
    )
    uvicorn.run(create_app(config), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
