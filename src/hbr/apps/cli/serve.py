"""`hbr serve` and `hbr ui`."""

from __future__ import annotations

import threading
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.restoring import DeviceOption
from hbr.image.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from hbr.service.jobs import ServiceLimits
    from hbr.service.server import Offer

_Models = Annotated[
    list[str],
    typer.Option("--model", help="A model to offer; may be repeated. The first is the default."),
]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")]


def serve(
    models: _Models = ["nano"],  # noqa: B006
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: _Port = 8421,
    token: Annotated[
        str | None,
        typer.Option(envvar="HBR_TOKEN", help="Token that clients must send as a bearer token."),
    ] = None,
    device: DeviceOption = "auto",
    decoders: Annotated[
        list[str],
        typer.Option(
            "--decoder",
            metavar="NAME|FILE",
            help="A decoder to offer in place of those models' own that it suits; may be repeated. "
            "The first that suits a model is its default.",
        ),
    ] = [],  # noqa: B006
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest upload, in MB.")] = 100,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger photos.")
    ] = DEFAULT_MAX_PIXELS,
    queue: Annotated[int, typer.Option(min=1, help="Number of photos that may wait.")] = 32,
    keep: Annotated[
        float, typer.Option(min=1, help="Seconds after which a result is deleted.")
    ] = 3600,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one photo.")] = 1800,
) -> None:
    """Serve the HTTP API and its page until Ctrl-C.

    The address goes to stdout. GET /openapi.json describes the API; docs/service.md explains it.
    """
    from hbr.service.jobs import ServiceLimits
    from hbr.service.server import check_host, offered

    check_host(host, token or None)
    limits = ServiceLimits(
        max_bytes=int(max_megabytes * 1e6),
        max_pixels=max_pixels,
        waiting=queue,
        keep=keep,
        seconds=timeout,
    )
    _serve(offered(models, decoders, device), host, port, limits, token or None, opens=False)


def ui(
    models: _Models = ["nano"],  # noqa: B006
    port: _Port = 0,
    device: DeviceOption = "auto",
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open a page to restore photos in the browser, on this machine alone.

    The address goes to stdout. Ctrl-C ends it.
    """
    from hbr.service.jobs import ServiceLimits
    from hbr.service.server import offered

    offer = offered(models, device=device)
    _serve(offer, "127.0.0.1", port, ServiceLimits(waiting=1000), None, opens=browser)


def _serve(
    offer: Offer,
    host: str,
    port: int,
    limits: ServiceLimits,
    token: str | None,
    *,
    opens: bool,
) -> None:
    from hbr.service.listening import listen
    from hbr.service.server import serve as run

    with listen(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{sock.getsockname()[1]}/"

        def ready() -> None:
            typer.echo(address)
            if opens:
                threading.Timer(0.5, webbrowser.open, (address,)).start()

        run(sock, host, offer, limits, token=token, ready=ready)
