"""The page of a review, served to reviewers who have a token: claims, pictures, verdicts."""

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Annotated, Any, get_args

import numpy as np
from annotated_types import Ge
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from rtsx.errors import ReviewError, RtsxError
from rtsx.pages import render_page
from rtsx.parsing import parsed_json
from rtsx.review.pictures import ReviewPictures, View
from rtsx.review.plan import AddedOutline, Answer, BatchVerdicts, ReviewClaim
from rtsx.review.store import Review
from rtsx.scores.agreement import Verdict

_LARGEST_REQUEST = 16 << 20
"""Bytes of what a page may send."""
_TRUSTED_S = 60.0
"""Seconds that a token is known without asking the store."""
_LOG = logging.getLogger("rtsx.review")

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class _SentAnswer:
    outline: str
    verdict: Verdict
    reason: str = ""
    comment: str = ""
    corrected: Ring | None = None
    seconds: Annotated[float, Ge(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class _SentOutline:
    ring: Ring
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class _SentBatch:
    """What a page sends of one batch; places in the CRS of the first image."""

    round: int
    batch: int
    answers: tuple[_SentAnswer, ...]
    added: tuple[_SentOutline, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewService:
    """What the page asks for, without the web around it; one for all reviewers."""

    review: Review
    pictures: ReviewPictures
    _known: dict[str, tuple[str, float]] = field(default_factory=dict)

    def reviewer(self, token: str) -> str | None:
        """Return whose token this is; None where it is nobody's."""
        name, until = self._known.get(token, (None, 0.0))
        if until < time.monotonic():
            name = self.review.reviewer_of(token)
            if name is not None:
                self._known[token] = name, time.monotonic() + _TRUSTED_S
        return name

    def describe(self, reviewer: str) -> dict[str, Any]:
        """Return what the page shows whoever opens it."""
        settings = self.review.settings
        images = [
            {"name": name, "styles": list(styles)}
            for (name, _), styles in zip(self.pictures.images, self.pictures.styles, strict=True)
        ]
        return {
            "review": settings.digest[:16] + settings.created.strftime("%Y%m%d%H%M%S"),
            "reviewer": reviewer,
            "class": settings.class_name,
            "images": images,
        }

    def claim(self, reviewer: str) -> dict[str, Any]:
        """Return batches for a reviewer, with all that is needed to review them without the server."""
        claims = self.review.claim(reviewer)
        done, total = self.review.progress()
        return {
            "batches": [{"round": claim.round, "batch": claim.batch} for claim in claims],
            "items": self._items(claims),
            "done": done,
            "total": total,
        }

    def _items(self, claims: tuple[ReviewClaim, ...]) -> list[dict[str, Any]]:
        table, rounds = self.review.outlines, self.review.rounds()
        shown = [(claim, name) for claim in claims for name in rounds[claim.round - 1].batches[claim.batch].outlines]
        if len(claims) > 1:  # repeats are not to be told from the others by where they stand
            seed = [self.review.settings.seed, *(claim.batch for claim in claims)]
            shown = [shown[place] for place in np.random.default_rng(seed).permutation(len(shown))]
        rings = cache(self.pictures.rings)  # of one batch, whose outlines are neighbours of each other
        return [self._item(claim, name, int(table.index.get_loc(name)), rings=rings) for claim, name in shown]

    def _item(
        self, claim: ReviewClaim, name: str, row: int, *, rings: Callable[[int], list[list[list[float]]]]
    ) -> dict[str, Any]:
        item: dict[str, Any] = {
            "outline": name,
            "batch": claim.batch,
            "row": row,
            "rings": rings(row),
            "near": [ring for other in self.pictures.near(row) for ring in rings(other)],
            "close": self.pictures.box(row, "close"),
            "wide": self.pictures.box(row, "wide"),
            "metres": {view: self.pictures.side_m(row, view) for view in get_args(View)},
        }
        table = self.review.outlines
        if not self.review.settings.blind and "prob_max" in table.columns:
            item["probability"] = float(table["prob_max"].iloc[row])
        return item

    def submit(self, reviewer: str, body: bytes) -> dict[str, Any]:
        """Keep the verdicts of one batch."""
        sent = parsed_json(body, _SentBatch, what="The request", error=ReviewError)
        drawn = [None if one.corrected is None else self.pictures.to_outline(one.corrected) for one in sent.answers]
        answers = tuple(
            Answer(**vars(one) | {"corrected": outline}) for one, outline in zip(sent.answers, drawn, strict=True)
        )
        added = tuple(
            AddedOutline(geometry=self.pictures.to_outline(one.ring), comment=one.comment) for one in sent.added
        )
        verdicts = BatchVerdicts(
            round=sent.round,
            batch=sent.batch,
            reviewer=reviewer,
            answers=answers,
            added=added,
            finished=self.review.clock(),
        )
        return {"new": self.review.submit(verdicts)}

    def renew(self, reviewer: str) -> dict[str, Any]:
        """Keep the reviewer's batches for him."""
        return {"batches": [claim.batch for claim in self.review.renew(reviewer)]}


class _Handler(RequestHandler):
    """Answers whoever has a token."""

    reviewer = ""

    def initialize(self, service: ReviewService, pool: ThreadPoolExecutor) -> None:
        """Take what all requests share."""
        self.service, self.pool = service, pool

    def set_default_headers(self) -> None:
        """Tell the browser to trust nothing but this page."""
        self.nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{self.nonce}'; style-src 'nonce-{self.nonce}'; img-src blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        )
        self.set_header("Content-Security-Policy", policy)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Server", "rtsx")

    async def prepare(self) -> None:
        """Refuse whoever has no token, before anything else is done."""
        in_header = self.request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = in_header or self.get_query_argument("token", "")
        reviewer = await self.threaded(self.service.reviewer, given) if given else None
        if reviewer is not None:
            self.reviewer = reviewer
            return
        what = "It is wrong or has ended" if given else "It is missing"
        opens = "This review opens with the address that holds your token, as rtsx review serve prints it."
        self.refuse(401, f"{opens} {what}.")

    async def threaded(self, work: Callable[..., Any], *given: Any) -> Any:
        """Run in a thread what asks the store."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, partial(work, *given))

    async def answer(self, work: Callable[..., Any], *given: Any) -> None:
        """Send what some work gives, or why it cannot be had."""
        try:
            self.finish(await self.threaded(work, *given))
        except OSError as error:  # before ours, because some of them are one, and may pass
            _LOG.warning("The store of the review: %s", error)
            self.refuse(503, "The store of the review does not answer; the terminal of rtsx review serve says why.")
        except RtsxError as error:
            self.refuse(409, str(error))

    def refuse(self, status: int, message: str) -> None:
        """Send a message instead of an answer."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))

    def write_error(self, status_code: int, **how: Any) -> None:
        """Say what went wrong, and nothing of our files."""
        cause = how.get("exc_info", (None, None, None))[1]
        self.refuse(status_code, str(cause) if isinstance(cause, RtsxError) else f"Error {status_code}.")


class _Page(_Handler):
    def get(self) -> None:
        """Send the page."""
        self.finish(
            render_page("review.html", {"class_name": self.service.review.settings.class_name, "nonce": self.nonce})
        )


class _About(_Handler):
    async def get(self) -> None:
        """Tell who the reviewer is, and what there is to see."""
        await self.answer(self.service.describe, self.reviewer)


class _Claim(_Handler):
    async def post(self) -> None:
        """Give a batch."""
        await self.answer(self.service.claim, self.reviewer)


class _Alive(_Handler):
    async def post(self) -> None:
        """Keep batches for whoever is at work on them."""
        await self.answer(self.service.renew, self.reviewer)


class _Verdicts(_Handler):
    async def post(self) -> None:
        """Take the verdicts of a batch."""
        await self.answer(self.service.submit, self.reviewer, self.request.body)


class _Picture(_Handler):
    async def get(self, row: str, view: View, image: str) -> None:
        """Send a picture; its place in a header."""
        style = self.get_query_argument("style", "")
        try:
            picture = await asyncio.wrap_future(
                self.service.pictures.picture(int(row), view, image=int(image), style=style)
            )
        except RtsxError as error:
            self.refuse(409, str(error))
            return
        self.set_header("Content-Type", "image/png")
        self.set_header("Rtsx-Box", json.dumps(picture.box))
        self.finish(picture.png)


class _Nothing(_Handler):
    def get(self) -> None:
        """Say that nothing else is here: no address leads to a file."""
        self.refuse(404, "There is nothing here.")


def _application(service: ReviewService, pool: ThreadPoolExecutor) -> Application:
    shared = {"service": service, "pool": pool}
    routes: list[tuple[str, type[_Handler]]] = [
        (r"/", _Page),
        (r"/api/review", _About),
        (r"/api/claim", _Claim),
        (r"/api/alive", _Alive),
        (r"/api/verdicts", _Verdicts),
        (r"/api/picture/(\d{1,9})/(close|wide)/(\d{1,3})", _Picture),
    ]
    return Application(
        [(route, handler, shared) for route, handler in routes],
        default_handler_class=_Nothing,
        default_handler_args=shared,
        log_function=lambda handler: _LOG.debug("%s %s", handler.get_status(), handler.request.path),
    )


@contextmanager
def serve_review(
    review: Review,
    *,
    opener: Callable[[str], Any] = str,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: tuple[str, str] | None = None,
    behind_proxy: bool = False,
) -> Iterator[str]:
    """Serve the page of a review during the block; yields its address, to which a reviewer's token is added.

    Parameters
    ----------
    review : Review
        The review.
    opener : callable
        Makes of the source of an image what `rtsx.viewer.Pyramid.of` takes, such as `rtsx.load_cube_recipe` of a YAML file, or a
        `Pyramid`.
    host : str
        Address to listen at; other machines than this one reach it only where it is not a loopback address.
    port : int
        Port; 0 for any that is free.
    certificate : tuple of str or None
        Files of a TLS certificate and its key.
    behind_proxy : bool
        Whether a proxy in front of it does TLS.

    Raises
    ------
    ReviewError
        The port is taken, the outlines lie elsewhere, or other machines would reach it without TLS.
    """
    if not _is_loopback(host) and certificate is None and not behind_proxy:
        raise ReviewError(
            f"At {host} other machines read the tokens on their way. Give a certificate and its key (--certificate, --key), or "
            "state that a proxy in front does TLS (--behind-proxy)."
        )
    security = _security(certificate)
    pictures = ReviewPictures.open(review, opener=opener)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setblocking(False)
    except OSError as error:
        pictures.close()
        reason = f"cannot be listened at ({error.strerror or error})"
        if error.errno == errno.EADDRINUSE:
            reason = "is in use"
        raise ReviewError(
            f"Port {port} of {host} {reason}. Take another with --port; 0 is any that is free."
        ) from error
    pool = ThreadPoolExecutor(8, "rtsx-review")
    ready, state = threading.Event(), dict[str, Any]()

    async def run() -> None:
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
        application = _application(ReviewService(review=review, pictures=pictures), pool)
        server = HTTPServer(
            application,
            ssl_options=security,
            max_buffer_size=_LARGEST_REQUEST,
            xheaders=behind_proxy,
            idle_connection_timeout=600,
        )
        server.add_socket(listening)
        ready.set()
        await state["stop"].wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="rtsx-review-server", daemon=True)
    thread.start()
    ready.wait()
    named = socket.gethostname() if host in ("", "0.0.0.0", "::") else host  # nobody can open these
    shown = f"[{named}]" if ":" in named else named
    try:
        yield f"{'https' if certificate else 'http'}://{shown}:{listening.getsockname()[1]}/"
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(10)
        pool.shutdown(wait=False, cancel_futures=True)
        pictures.close()


def _security(certificate: tuple[str, str] | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(*certificate)
    except OSError as error:  # ssl.SSLError is one
        raise ReviewError(
            f"{certificate[0]} and {certificate[1]} are no certificate and its key in PEM: {error}. Check both files."
        ) from error
    return context


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
