"""Running a service: models by name, a socket, and uvicorn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket

import uvicorn

from hbr.config import ConfigError, check
from hbr.models.files import read_header
from hbr.restoration import Restorer
from hbr.service.api import Service, create_app
from hbr.service.guard import hosts_of, loopback
from hbr.service.jobs import Load, ServiceLimits
from hbr.service.page import add_page
from hbr.service.schemas import OWN, ModelView
from hbr.weights import FoundFile, find_decoder, find_model

Offer = tuple[tuple[ModelView, ...], Load]
"""The models as clients see them, the first is the default; and what loads one by its name."""


def offered(models: Sequence[str], decoders: Sequence[str] = (), device: str = "auto") -> Offer:
    """Look into models, and decoders for them; files go by their stems.

    Args:
        models: known names or model files.
        decoders: known names or files, each for those models whose latents it decodes.
        device: as `hbr.Restorer.from_pretrained` takes it.

    Raises:
        WeightsError: one is unknown, missing or damaged.
        ConfigError: two have one name, a decoder is called "own", or it suits no model.
    """
    places = _by_name(models, "models")
    others = _by_name(decoders, "decoders")
    check(OWN not in others, "decoder", OWN, f"called otherwise: {OWN} is the model's own")
    files = {name: find_model(place) for name, place in places.items()}
    found = {name: find_decoder(place) for name, place in others.items()}
    suited = _suited(files, found)

    def load(model: str, fidelity: float | None, decoder: str | None) -> Restorer:
        return Restorer.from_pretrained(
            places[model],
            device=device,
            fidelity=fidelity,
            decoder=None if decoder is None else others[decoder],
        )

    return tuple(_view(name, file, suited[name]) for name, file in files.items()), load


def _by_name(places: Sequence[str], what: str) -> dict[str, str]:
    """The names that clients use, and what they stand for."""
    found: dict[str, str] = {}
    for place in places:
        name = Path(place).stem if Path(place).suffix else place
        if name in found:
            raise ConfigError(f"two {what} are called {name}; rename a file")
        found[name] = place
    return found


def _suited(files: dict[str, Path], decoders: dict[str, FoundFile]) -> dict[str, list[str]]:
    """The decoders that suit each model, by name."""
    suited: dict[str, list[str]] = {name: [] for name in files}
    if not decoders:
        return suited
    from hbr.models.loading import open_model

    for name, decoder in decoders.items():
        refused: list[ConfigError] = []
        for model, file in files.items():
            try:
                open_model(file, decoder)
            except ConfigError as error:
                refused.append(error)
            else:
                suited[model].append(name)
        if len(refused) == len(files):
            raise refused[0]
    return suited


def _view(name: str, file: Path, decoders: list[str]) -> ModelView:
    header = read_header(file)
    return ModelView(
        name=name,
        two_ends=header.fidelity is not None,
        upscale=header.config.capabilities.upscale,
        decoders=decoders,
    )


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
    offer: Offer,
    limits: ServiceLimits,
    *,
    token: str | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; photos and results are deleted then.

    The first model of `offer` is loaded at once, after which `ready` is called. `sock` listens on
    `host`; clients must send `token`.

    Raises:
        WeightsError: the first model is missing or damaged.
        ConfigError: the host needs a token.
    """
    check_host(host, token)
    with tempfile.TemporaryDirectory(prefix="hbr-") as folder:
        views, load = offer
        service = Service(Path(folder), views, limits, load)
        try:
            first = views[0]
            service.queue.warm(first.name, next(iter(first.decoders), None))
            app = create_app(service, token=token, hosts=hosts_of(host))
            add_page(app)
            ready()
            config = uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=3, limit_concurrency=200
            )
            uvicorn.Server(config).run(sockets=[sock])
        finally:
            service.queue.close()
