"""The server of the page: on this machine alone, for those who know the token of its address."""

import asyncio
import hmac
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.resources import Resources
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.ws import WSHandler
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler

from rtsx.errors import PathError
from rtsx.viewer.mapview import MapView
from rtsx.viewer.page import open_page

_HOST = "127.0.0.1"
_REFUSED = "This address needs its token: open the whole address that rtsx view printed"


class _TokenAuth(AuthProvider):
    """Lets in whoever has the token in the address; connections of a page carry a signed session of their own."""

    def __init__(self, token: str) -> None:
        self.token = token.encode()
        super().__init__()

    @property
    def get_user(self) -> Callable[[Any], str | None]:
        """Function that knows a reader by his request."""
        return self._user

    def _user(self, handler: RequestHandler) -> str | None:
        # Not by a cookie, which a browser does not send from within a notebook of another address.
        known = isinstance(handler, WSHandler) or hmac.compare_digest(
            handler.get_argument("ticket", "").encode(), self.token
        )
        if not known:
            raise HTTPError(403, reason=_REFUSED)
        return "reader"

    @property
    def login_url(self) -> str:
        """Nowhere, because strangers are refused at once."""
        return "/"


class _PageServer(BokehTornado):
    """Puts the JavaScript into the page, so that it works below any prefix that a proxy has, and without a network."""

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        """Return resources that are in the page."""
        return Resources(mode="inline")


def make_server(view: MapView, *, port: int) -> tuple[BaseServer, str]:
    """Make the server of a map, in the loop of this thread, and its address.

    Raises
    ------
    PathError
        The port is taken.
    """
    try:
        listening = socket.create_server((_HOST, port))
    except (OSError, OverflowError) as error:
        raise PathError(
            f"Port {port} of this machine cannot be used: {error}. Leave --port out for a free one, or name another."
        ) from error
    listening.setblocking(False)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    tornado = _PageServer(
        Application(FunctionHandler(lambda document: open_page(view, document))),
        secret_key=secrets.token_bytes(32),
        sign_sessions=True,
        auth_provider=_TokenAuth(token),
        # Behind a hub the address is the hub's; who connects needs a session that only the token gives.
        extra_websocket_origins=["*"] if prefix else [f"{_HOST}:{port}", f"localhost:{port}"],
        keep_alive_milliseconds=10_000,
    )
    http = HTTPServer(tornado)
    http.add_sockets([listening])
    server = BaseServer(IOLoop.current(), tornado, http)
    server.start()
    place = f"{prefix.rstrip('/')}/proxy/{port}/" if prefix else f"http://{_HOST}:{port}/"
    return server, f"{place}?ticket={token}"


def serve(view: MapView, *, port: int = 0, on_start: Callable[[str], None] | None = None) -> None:
    """Serve a map until the process is stopped.

    Parameters
    ----------
    view
        What is shown.
    port
        0 for a free one.
    on_start
        Called with the address, which only who knows it may use.

    Raises
    ------
    PathError
        The port is taken.
    """
    logging.getLogger("bokeh").setLevel(logging.ERROR)
    asyncio.run(_serve(view, port=port, on_start=on_start))


async def _serve(view: MapView, *, port: int, on_start: Callable[[str], None] | None) -> None:
    server, address = make_server(view, port=port)
    try:
        if on_start is not None:
            on_start(address)
        await asyncio.Event().wait()  # until the loop is stopped
    finally:
        server.stop()


_served: dict[int, str] = {}
"""Addresses of the maps that notebooks show, by what they are of."""


def address_in_notebook(view: MapView) -> str:
    """Return the address of a map, served by a thread of this process as long as that runs."""
    if id(view) not in _served:
        address: Future[str] = Future()

        def run() -> None:
            try:
                serve(view, on_start=address.set_result)
            except BaseException as error:
                if address.done():
                    raise
                address.set_exception(error)  # raised in the cell that asks

        threading.Thread(target=run, name="rtsx-view", daemon=True).start()
        _served[id(view)] = address.result()
    return _served[id(view)]
