"""Running a service: models by name, a socket, and uvicorn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket

import uvicorn

from hbr.config import ConfigError
from hbr.models.files import read_header
from hbr.restoration import Restorer
from hbr.service.api import Service, create_app
from hbr.service.guard import hosts_of, loopback
from hbr.service.limits import ServiceLimits
from hbr.service.page import add_page
from hbr.service.schemas import ModelView
from hbr.weights import find_model


def offered(names: Sequence[str]) -> dict[str, tuple[str, ModelView]]:
    """The models of a service: name → (name or file to load, what clients see).

    Args:
        names: known names or model files; a file goes by its stem.

    Raises:
        WeightsError: one is unknown, missing or damaged.
        ConfigError: two have one name.
    """
    found: dict[str, tuple[str, ModelView]] = {}
    for place in names:
        path = find_model(place)
        header = read_header(path)
        name = path.stem if Path(place).suffix else place
        if name in found:
            raise ConfigError(f"two models are called {name}; rename a file")
        view = ModelView(
            name=name,
            two_ends=header.fidelity is not None,
            upscale=header.config.capabilities.upscale,
        )
        found[name] = (place, view)
    return found


def check_host(host: str, token: str | None) -> None:
    """Raise `ConfigError` if a service without a token would be open to other machines."""
    if token is None and not loopback(host):
        raise ConfigError(
            f"host is {host!r}, which other machines can reach; set a token (HBR_TOKEN), or listen "
            "on 127.0.0.1"
        )


def serve(
    sock: socket,
    host: str,
    models: Sequence[str],
    limits: ServiceLimits,
    *,
    device: str = "auto",
    token: str | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; photos and results are deleted then.

    `models` are names or files; the first is the default and is loaded at once, after which `ready`
    is called. `sock` listens on `host`; clients must send `token`.

    Raises:
        WeightsError: a model is unknown, missing or damaged.
        ConfigError: two models have one name, or the host needs a token.
    """
    check_host(host, token)
    known = offered(models)

    def load(name: str, fidelity: float | None) -> Restorer:
        return Restorer.from_pretrained(known[name][0], device=device, fidelity=fidelity)

    with tempfile.TemporaryDirectory(prefix="hbr-") as folder:
        views = tuple(view for _, view in known.values())
        service = Service(Path(folder), views, limits, load)
        try:
            service.queue.warm(views[0].name)
            app = create_app(service, token=token, hosts=hosts_of(host))
            add_page(app)
            ready()
            config = uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=3, limit_concurrency=200
            )
            uvicorn.Server(config).run(sockets=[sock])
        finally:
            service.queue.close()
