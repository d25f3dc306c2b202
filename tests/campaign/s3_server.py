"""An S3 server on loopback that keeps conditional puts: ``python s3_server.py PORT``.

It is moto's. Its own program answers requests in threads and looks whether an object is there before it puts it, so that now and
then two of many writers are told that they created one; real stores do not.
"""

import sys
from collections.abc import Iterable
from functools import lru_cache
from threading import Lock
from typing import Any

from moto import backends
from moto.core import serialize
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

# For each request it lists the folder of its own services twice, and it parses the time of every object of a listing.
_services = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: _services
serialize.parse_to_aware_datetime = lru_cache(2**16)(serialize.parse_to_aware_datetime)
_application = DomainDispatcherApplication(create_backend_app)
_one_at_a_time = Lock()


def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """One request; of those under a condition, one at a time."""
    if not {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"}.isdisjoint(environ):
        with _one_at_a_time:
            return _application(environ, start_response)
    return _application(environ, start_response)


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), answer, threaded=True, request_handler=MotoRequestHandler)
