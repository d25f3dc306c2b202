"""Access to Planet: credentials, and what its refusals mean."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import planet
from planet.exceptions import (
    APIError,
    BadGateway,
    InvalidAPIKey,
    MissingResource,
    NoPermission,
    PlanetError,
    ServerError,
    TooManyRequests,
)
from planet.specs import FetchBundlesSpecError, SpecificationException
from planet_auth import AuthException

from rtsx.errors import OrderError

__all__ = ["PASSING", "credentials", "told"]

PASSING = (TooManyRequests, BadGateway, ServerError, httpx.TransportError)
"""What may be over the next time; for an order, whether it was placed or not has to be asked first."""


def credentials() -> planet.Auth:
    """The key in ``PL_API_KEY``, else what ``planet auth login`` has stored.

    Raises
    ------
    OrderError
        There are none.
    """
    cure = "Set PL_API_KEY to your API key, or run `planet auth login`."
    if key := os.environ.get("PL_API_KEY"):
        return planet.Auth.from_key(key)
    try:
        auth = planet.Auth.from_user_default_session()
        if auth.is_initialized():
            return auth
    except (PlanetError, AuthException, OSError, ValueError) as error:
        raise OrderError(f"There are no usable credentials for Planet: {error}. {cure}") from error
    raise OrderError(f"There are no credentials for Planet. {cure}")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the SDK and HTTP raise into one error that says what to do.

    Raises
    ------
    OrderError
        The block raises; the cause is kept, and is one of `PASSING` where trying again may help.
    """
    try:
        yield
    except InvalidAPIKey as error:
        raise OrderError(f"Planet refuses the API key (401) to {what}. Check PL_API_KEY.") from error
    except NoPermission as error:
        raise OrderError(
            f"Planet does not allow your account (403) to {what}: {error}. Check your contract."
        ) from error
    except MissingResource as error:
        raise OrderError(f"Planet has nothing there (404) to {what}: {error}. Is it another account's?") from error
    except TooManyRequests as error:
        raise OrderError(
            f"Planet is asked too often, or the quota is used up (429), to {what}: {error}. Wait."
        ) from error
    except (ServerError, BadGateway, httpx.HTTPError, json.JSONDecodeError, FetchBundlesSpecError) as error:
        raise OrderError(
            f"Planet cannot {what} now: {str(error) or type(error).__name__}. Run the same command again later; nothing is "
            "ordered twice."
        ) from error
    except SpecificationException as error:
        raise OrderError(
            f"Planet does not know that product, to {what}: {error} Correct bundle or item_type."
        ) from error
    except (APIError, PlanetError, AuthException) as error:
        raise OrderError(f"Planet refuses to {what}: {error}. Correct the order, or ask Planet.") from error
