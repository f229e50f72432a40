"""A second Plangate process that never hears what others change: `python -m tests.web.deaf_server SETTINGS PORT`."""

import asyncio
import sys

import uvicorn

from plangate.deployment import Deployment
from plangate.settings import Settings
from plangate.web.app import create_app


async def main(settings: Settings, port: int) -> None:
    """Serve until stopped, without following the change feed."""
    deployment = await Deployment.open(settings)
    setattr(deployment, "start_following", lambda: None)  # noqa: B010 - an assignment would not be typed
    app = create_app(deployment, has_worker=False)
    await uvicorn.Server(uvicorn.Config(app, port=port, log_config=None)).serve()
    await deployment.close()


if __name__ == "__main__":
    asyncio.run(main(Settings.model_validate_json(sys.argv[1]), int(sys.argv[2])))
