"""An S3 server on loopback that keeps conditional puts: ``python s3_server.py PORT``.

It is moto's. Its own program answers requests in threads and looks whether an object is there before it puts it, so that now and
then two of many writers are told that they created one; real stores do not.
"""

import sys
from collections.abc import Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

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
