"""Streams as child runs of a job: started in a proxy's work pool, and watched to their end.

Prefect raises nothing when a child fails, and does not end a run that no worker takes: both are seen to here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.flow_runs import cancel, state_of
from tasks.outage import answered
from tasks.pools import STREAM_FLOW, seen_by_prefect, waits_its_turn
from vsa.errors import StreamFailed, VsaError
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome, kept_outcome
from vsa.stop import Stop, again
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Attempt, Failure, Proxy

UNFIT = "Unfit"
"""Name of the state in which a child run ends whose proxy could not so much as begin."""
LOOK_SECONDS = 1.0
POOL_SECONDS = 15.0
"""Between looks at a pool in which a stream waits for its start."""
CANCEL_SECONDS = 120.0
"""After which a cancelled run that has not ended never will: its worker kills it after thirty."""

# Linking a child to its job counts the job's links in a plain dictionary: one at a time.
_linking = threading.Lock()
_log = logging.getLogger(__name__)


class ProxyLost(VsaError):
    """A proxy failed a stream that another one may carry."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"proxy {attempt.proxy} {attempt.failure}: {attempt.reason}")
        self.attempt = attempt


class ChildRuns:
    """The child runs of one job. `subclient` is the name of the block that proxies open for themselves."""

    def __init__(
        self,
        subclient: str,
        media: Media,
        stop: Stop,
        *,
        started: Callable[[StreamOrder, UUID], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`started` is told of each stream's child run as soon as there is one."""
        self._subclient = subclient
        self._media = media
        self._stop = stop
        self._started = started
        self._clock = clock

    def carry(self, proxy: Proxy, orders: Sequence[StreamOrder]) -> list[StreamOutcome | VsaError]:
        """Have one child run carry these streams; what became of each, in the order given.

        That is ProxyLost for one that another proxy may carry, because this one died under it or was unfit;
        StreamFailed if somebody cancelled the child. What it left word of is done, however it ended.
        Raises ProxyLost if the proxy cannot or did not begin, RunStopped once the job stops, when the child
        has ended.
        """
        child = self._start(proxy, orders)
        try:
            state = self._end_of(child, proxy)
        except ProxyLost:
            raise
        except BaseException:
            # Whatever ended the waiting: no stream goes on that nobody waits for.
            cancel([child.id])
            raise
        return [self._outcome(order, child, state, proxy) for order in orders]

    def _outcome(
        self, order: StreamOrder, child: FlowRun, state: State, proxy: Proxy
    ) -> StreamOutcome | VsaError:
        look = partial(kept_outcome, self._media, run=order.run, disk_key=order.disk.key, attempt=child.id)
        try:
            found = again(look, stop=self._stop)
        except VsaError as error:
            return error
        return found or _why_no_word(child, state, proxy)

    def _start(self, proxy: Proxy, orders: Sequence[StreamOrder]) -> FlowRun:
        (seen,) = answered(lambda: seen_by_prefect([proxy]), self._stop)
        if seen.refusal:
            raise ProxyLost(_attempt(proxy, Failure.REFUSED, seen.refusal))
        # One key for all attempts at this request: an answer that was lost makes no second child.
        key = uuid4().hex
        try:
            child = answered(lambda: self._create(proxy, orders, key), self._stop)
        except (ObjectNotFound, PrefectHTTPStatusError) as error:
            reason = f"Prefect refuses a run of {STREAM_FLOW}/{proxy.name}: {error}"
            raise ProxyLost(_attempt(proxy, Failure.REFUSED, reason)) from error
        for order in orders:
            self._started(order, child.id)
        _log.info("%s is given to proxy %s (run %s)", child.name, proxy.name, child.id)
        return child

    def _create(self, proxy: Proxy, orders: Sequence[StreamOrder], key: str) -> FlowRun:
        parameters = {
            "subclient": self._subclient,
            "streams": [order.model_dump(mode="json") for order in orders],
        }
        with _linking:
            # Many may have waited here for long; none of them begins after a stop.
            self._stop.check()
            # In a task it answers at once, and with the run: its signature speaks of coroutines as well.
            created: Any = run_deployment(
                f"{STREAM_FLOW}/{proxy.name}",
                parameters=parameters,
                flow_run_name=run_name(orders),
                timeout=0,
                as_subflow=True,
                idempotency_key=key,
                tags=sorted({f"proxy:{proxy.name}", *(f"vm:{order.vm}" for order in orders)}),
            )
            assert isinstance(created, FlowRun)
            return created

    def _end_of(self, child: FlowRun, proxy: Proxy) -> State:
        """The child's last state, whenever it comes: a final one, or a cancellation that has no end."""
        waiting = _Waiting(proxy, self._clock)
        while True:
            state = answered(lambda: state_of(child.id), self._stop)
            if state is None:
                raise ProxyLost(_attempt(proxy, Failure.DIED, f"its run {child.name} was deleted"))
            if state.is_final() or waiting.for_no_end(state):
                return state
            if failed := answered(partial(waiting.in_vain, state), self._stop):
                cancel([child.id], wait_seconds=0)
                raise ProxyLost(failed)
            self._stop.wait(LOOK_SECONDS)


def _why_no_word(child: FlowRun, state: State, proxy: Proxy) -> StreamOutcome | VsaError:
    """What is to be made of a stream that its child run, which ended like this, left no word of."""
    if state.type is StateType.CRASHED:
        return ProxyLost(_attempt(proxy, Failure.DIED, f"{child.name}: {state.message}"))
    if state.type is StateType.FAILED and state.name == UNFIT:
        return ProxyLost(_attempt(proxy, Failure.NOT_STARTED, str(state.message)))
    if state.type in (StateType.CANCELLED, StateType.CANCELLING):
        return StreamFailed(f"its stream was cancelled: {child.name} on proxy {proxy.name}")
    return StreamOutcome(
        error=f"the stream left no word on the media; its run {child.name} ended as {state.name}: "
        f"{state.message or 'without a message'}"
    )


class _Waiting:
    """Whether it makes sense to wait any longer for a run to begin."""

    def __init__(self, proxy: Proxy, clock: Callable[[], float]) -> None:
        self._proxy = proxy
        self._clock = clock
        self._since = self._looked = clock()
        self._cancelling: float | None = None

    def for_no_end(self, state: State) -> bool:
        """Whether the run has been about to end, cancelled, for so long that nobody can be there to end it.

        Prefect lets a run that is being cancelled become nothing but Cancelled, not Crashed either: it says
        nothing more of one whose machine is gone.
        """
        if state.type is not StateType.CANCELLING:
            self._cancelling = None
            return False
        self._cancelling = self._clock() if self._cancelling is None else self._cancelling
        return self._clock() - self._cancelling >= CANCEL_SECONDS

    def in_vain(self, state: State) -> Attempt | None:
        """Why it does not; None if it does, or if the run has begun."""
        if state.type not in (StateType.SCHEDULED, StateType.PENDING):
            return None
        now = self._clock()
        late = now - self._since >= self._proxy.start_seconds
        # What a worker has claimed is on its way, whatever is seen of its pool meanwhile.
        claimed = state.type is StateType.PENDING
        if not late and (claimed or now - self._looked < POOL_SECONDS):
            return None
        self._looked = now
        (seen,) = seen_by_prefect([self._proxy])
        if seen.refusal:
            return _attempt(self._proxy, Failure.REFUSED, seen.refusal)
        if not claimed and waits_its_turn(self._proxy, state):
            # Others' streams are before it, and they move: its time begins when there is a place free.
            self._since = now
        elif late:
            reason = f"it did not begin within {self._proxy.start_seconds} s"
            return _attempt(self._proxy, Failure.NOT_STARTED, reason)
        return None


def _attempt(proxy: Proxy, failure: Failure, reason: str) -> Attempt:
    return Attempt(proxy=proxy.name, failure=failure, reason=reason)


def run_name(orders: Sequence[StreamOrder]) -> str:
    """What a child run is called in the dashboard."""
    first = orders[0]
    more = f" and {len(orders) - 1} more" if len(orders) > 1 else ""
    return f"{first.disk.name} of {first.vm}{more} via {first.proxy}"
