"""A service on a real socket, with nano."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from service_photo import PHOTO

from hbr.restoration import Restorer
from hbr.service.api import Service, create_app
from hbr.service.jobs import ServiceLimits
from hbr.service.listening import listen
from hbr.service.page import add_page
from hbr.service.server import Offer, offered


class Running:
    """A service that runs: its address, its parts, and a client."""

    def __init__(self, service: Service, port: int, client: httpx.Client) -> None:
        self.service, self.port, self.client = service, port, client

    def restore(self, path: Path = PHOTO, **fields: object) -> httpx.Response:
        """Upload a photo."""
        data = {name: str(value) for name, value in fields.items()}
        return self.client.post("/v1/restore", files={"photo": path.open("rb")}, data=data)

    def ended(self, location: str, within: float = 60) -> dict:
        """The job at a location, when it has ended."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            job = self.client.get(location).json()
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"the job is still {job['state']}")


@pytest.fixture(scope="session")
def nano() -> Restorer:
    """The model that all services share."""
    return Restorer.from_pretrained("nano")


@pytest.fixture
def start(nano: Restorer, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start services with limits of their own; they end with the test."""
    running = []

    def begin(*, token: str | None = None, offer: Offer | None = None, **limits: object) -> Running:
        folder = tmp_path / f"service-{len(running)}"
        folder.mkdir()
        views, load = offer or (offered(["nano"])[0], lambda *names: nano)
        service = Service(folder, views, ServiceLimits(**limits), load)
        context = _served(service, token)
        running.append(context)
        return context.__enter__()

    yield begin
    for context in running:
        context.__exit__(None, None, None)


@contextmanager
def _served(service: Service, token: str | None) -> Iterator[Running]:
    app = create_app(service, token=token, hosts=("127.0.0.1",))
    add_page(app)
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield Running(service, port, client)
        server.should_exit = True
        service.queue.close()
        thread.join(10)
        assert not thread.is_alive()
