"""Looks at the processes of a dask cluster, and at workers that come later, before they run a cell."""

import logging
from collections.abc import Mapping

from distributed import Client, Reschedule, Worker, WorkerPlugin

from rtsx.campaign.environment import Needs, Offer, versions_here
from rtsx.errors import ClusterError

__all__ = ["Guard", "offers_of", "refuse_if_unfit", "scheduler_versions"]

_log = logging.getLogger(__name__)
_unfit: list[str] = []
"""What is wrong with this process, where a guard has found something."""


class Guard(WorkerPlugin):
    """Sends away workers that do not fit, as they come."""

    def __init__(self, needs: Needs, *, topic: str) -> None:
        self._needs = needs
        self._topic = topic

    def setup(self, worker: Worker) -> None:
        """Look at a worker that has just come."""
        _unfit.clear()
        lacking = self._needs.lacking(_offer(worker))
        if lacking:
            _unfit.append(lacking)
            _log.error("This worker %s, so it leaves. Give it the environment of the client.", lacking)
            worker.log_event(self._topic, f"worker {worker.address} {lacking}")
            # In the background, because a worker that is still starting cannot tell its nanny that it leaves.
            worker.loop.add_callback(worker.close_gracefully, reason=lacking)

    def teardown(self, worker: Worker) -> None:
        """Forget what was found."""
        _unfit.clear()


def refuse_if_unfit() -> None:
    """Hand the task that calls this to another worker, where this one was found unfit and is on its way out.

    Raises
    ------
    Reschedule
        It is; a scheduler understands that.
    """
    if _unfit:
        raise Reschedule(_unfit[0])


def scheduler_versions(client: Client) -> Mapping[str, str]:
    """Versions of the scheduler's libraries.

    Raises
    ------
    ClusterError
        It cannot say.
    """
    try:
        found: Mapping[str, str] = client.run_on_scheduler(versions_here)
    except Exception as error:  # whatever importing our package may raise over there
        raise _no_answer("The scheduler", error) from error
    return found


def offers_of(client: Client) -> dict[str, Offer]:
    """What each worker that is there has, by its address.

    Raises
    ------
    ClusterError
        One cannot say.
    """
    offers = client.run(_offer_here, on_error="return")
    for address, offer in offers.items():
        if isinstance(offer, BaseException):
            raise _no_answer(f"Worker {address}", offer) from offer
    return dict(offers)


def _no_answer(who: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"{who} cannot say which libraries it has ({type(error).__name__}: {error}). All machines of a campaign need rtsx in "
        "the version of the client, such as from one container image."
    )


def _offer_here(dask_worker: Worker) -> Offer:
    return _offer(dask_worker)


def _offer(worker: Worker) -> Offer:
    slots = int(worker.state.total_resources.get("GPU", 0)) or worker.state.nthreads
    return Offer(versions_here(), int(worker.memory_manager.memory_limit or 0), slots)
