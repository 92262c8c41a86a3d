"""What every request passes before anything else: size, time, host, origin and token."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; "
    "script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# what a page or a probe needs before it can have a token
OPEN = frozenset({"/", "/healthz", "/ui.css", "/ui.js"})
# of the fields beside the photo, and of the boundaries between them
_ENVELOPE = 65_536


class Guard:
    """ASGI middleware that refuses what is not for this service.

    Args:
        app: the service.
        max_bytes: size of an upload.
        seconds: time for an upload.
        answered: called with the path of the route and the status of each response.
        token: that a client must send as `Authorization: Bearer TOKEN`; None admits everyone.
        hosts: names under which a browser may reach the service; an empty collection admits all.
            It keeps pages of other sites from reaching a service on this machine by a name that
            they let point here (DNS rebinding).
        any_origin: whether requests from pages of other sites are taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        seconds: float,
        answered: Callable[[str, int], None] = lambda path, status: None,
        token: str | None = None,
        hosts: Collection[str] = (),
        any_origin: bool = False,
    ) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds
        self.answered = answered
        self.token, self.hosts, self.any_origin = token, frozenset(hosts), any_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(*refusal)(scope, receive, self._seen(scope, send))
            return
        body = _Body(receive, self.max_bytes + _ENVELOPE, self.seconds)
        await self.app(scope, body.receive, body.send(self._seen(scope, send)))

    def _seen(self, scope: Scope, send: Send) -> Send:
        """A `send` that adds the headers of every response and counts it."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    present.setdefault(name, value)
                self.answered(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        return sending

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = _address(f"//{host}").hostname or ""
        if (host and not name) or (self.hosts and name not in self.hosts):
            return 421, f"this service is not called {name!r}"
        origin = headers.get("origin")
        if (
            not self.any_origin
            and origin is not None
            and (not host or _address(origin).netloc != host)
        ):
            return 403, "requests from pages of other sites are refused"
        if self.token is not None and scope["path"] not in OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ").encode()
            if not secrets.compare_digest(given, self.token.encode()):
                return 401, "a valid token is needed: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return 400, "Content-Length is not a number"
        if int(length) > self.max_bytes + _ENVELOPE:
            return 413, f"the upload has {length} bytes; at most {self.max_bytes} are accepted"
        return None


class _Body:
    """Counts the bytes of an upload and its time; too much of either ends it."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._read = 0
        self._complete = False
        self._refusal: tuple[int, str] | None = None
        self._deadline: float | None = None

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()  # waits for the client to hang up
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), self._deadline - now)
        except TimeoutError:
            return self._refuse(408, f"the upload took longer than {self._seconds:g} s")
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            return self._refuse(413, f"the upload has more than {self._most} bytes")
        self._complete = message["type"] != "http.request" or not message.get("more_body")
        return message

    def _refuse(self, status: int, detail: str) -> Message:
        self._refusal = (status, detail)
        return {"type": "http.disconnect"}

    def send(self, send: Send) -> Send:
        """A `send` that answers with the refusal, if there is one, in place of anything else."""

        async def sending(message: Message) -> None:
            if self._refusal is None:
                await send(message)
            elif message["type"] == "http.response.start":
                await _answer(*self._refusal)({"type": "http"}, self._receive, send)

        return sending


def _address(text: str) -> SplitResult:
    """The parts of an address; empty ones of what is none."""
    try:
        return urlsplit(text)
    except ValueError:
        return urlsplit("")


def _answer(status: int, detail: str) -> JSONResponse:
    headers = {"Connection": "close"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def hosts_of(host: str) -> tuple[str, ...]:
    """The names under which a service that listens on `host` may be called; none means any."""
    return ("localhost", "127.0.0.1", "::1", host) if loopback(host) else ()
