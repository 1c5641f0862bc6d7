"""Child runs of a job on a real server, whose workers are played by the test: when to wait, move and stop."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from blocks.subclient import BackupSubclient
from flows.stream_disk import carry_out, stream_disk
from tasks import child_runs, proxies
from tasks.child_runs import POOL_SECONDS, UNFIT, _Waiting
from tasks.flow_runs import cancel, children_of, say_cancelled
from tasks.pools import seen_by_prefect
from tasks.proxies import ProxyStreams
from tasks.watch import Watch
from tests.flows.prefect_server import PrefectServer, wait_for
from tests.flows.site import Site
from tests.flows.station import Station
from tests.soak import only_in_ci
from tests.tasks.orders import an_order, its_outcome
from vsa.errors import RunStopped, StreamFailed
from vsa.media.outcomes import StreamOutcome, keep_outcome
from vsa.model import DiskBackup
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Proxy

pytestmark = only_in_ci

SECONDS = 60.0
SERVER_PAGE = 200
"""So many flow runs the server says at once (PREFECT_SERVER_API_DEFAULT_LIMIT)."""
NOBODY = "http://127.0.0.1:9/api"
"""Where no server listens."""


@pytest.fixture(scope="module")
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def stations(client: SyncPrefectClient) -> Iterator[list[Station]]:
    """Two proxies that can serve, as far as the server is told."""
    made = [Station(client) for _ in range(2)]
    for station in made:
        station.deploy()
        station.beat()
    yield made
    for station in made:
        client.delete_work_pool(station.proxy.pool)


@pytest.fixture
def run(client: SyncPrefectClient) -> FlowRun:
    """A flow run that is at work, for all the server knows."""
    return client.create_flow_run(stream_disk, parameters={}, state=Running())


class Turned:
    """A clock that a test turns."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class TestWaiting:
    """Whether it makes sense to wait any longer for a run to begin; its proxy has forty seconds for it."""

    @pytest.fixture(autouse=True)
    def _begin(self, stations: list[Station]) -> None:
        self.station = stations[0]
        self.clock = Turned()
        self.waiting = _Waiting(self.station.proxy.model_copy(update={"start_seconds": 40}), self.clock)

    def after(self, seconds: float, state: State) -> str:
        """How the proxy has failed the run by then, in words; empty if it has not."""
        self.clock.now += seconds
        failed = self.waiting.in_vain(state)
        return f"{failed.failure}: {failed.reason}" if failed else ""

    @property
    def refused(self) -> str:
        return f"refused: {self.station.refusal}" if self.station.refusal else "usable"

    def test_a_run_that_has_begun_is_waited_for_whatever_becomes_of_its_pool(self) -> None:
        self.station.change_pool(is_paused=True)
        assert [self.after(3600, state) for state in (Running(), Cancelling())] == ["", ""]

    def test_a_pool_that_is_paused_meanwhile_is_noticed_before_the_time_is_up(self) -> None:
        self.station.change_pool(is_paused=True)
        assert self.after(POOL_SECONDS - 1, Scheduled()) == "", "it is looked at now and then"
        assert self.after(1, Scheduled()) == self.refused

    def test_a_run_that_was_claimed_is_not_given_up_for_what_is_seen_of_its_pool(self) -> None:
        self.station.change_pool(is_paused=True)
        assert self.after(39, Pending()) == ""
        assert self.after(1, Pending()) == self.refused, "but it has no more time than any other"

    def test_a_run_that_nobody_began_in_time_is_given_up(self) -> None:
        assert self.after(39, Scheduled()) == ""
        assert self.after(1, Scheduled()) == "not started: it did not begin within 40 s"

    def test_a_run_that_was_claimed_and_not_begun_in_time_is_given_up_too(self) -> None:
        self.station.change_pool(concurrency_limit=1)
        claimed = self.station.run()
        self.station.tells(claimed, Pending())
        assert self.after(40, Pending()) == "not started: it did not begin within 40 s", (
            "it holds the place that is taken"
        )

    def test_a_full_pool_is_no_fault_of_the_proxy_and_the_time_begins_anew(self) -> None:
        self.station.change_pool(concurrency_limit=1)
        other = self.station.run()
        self.station.tells(other, Pending())
        assert [self.after(40, Scheduled()) for _ in range(3)] == ["", "", ""]
        self.station.tells(other, Crashed())
        assert self.after(39, Scheduled()) == ""
        assert self.after(1, Scheduled()) == "not started: it did not begin within 40 s"

    def test_a_place_that_has_just_become_free_is_not_held_against_the_proxy(self) -> None:
        self.station.change_pool(concurrency_limit=1)
        other = self.station.run()
        self.station.tells(other, Running())
        assert self.after(POOL_SECONDS, Scheduled()) == ""
        assert self.after(POOL_SECONDS, Scheduled()) == ""
        self.station.tells(other, Completed())
        assert self.after(10, Scheduled()) == "", "its worker looks every ten seconds"
        assert self.after(30, Scheduled()) == "not started: it did not begin within 40 s"

    def test_a_full_pool_whose_worker_is_gone_is_waited_for_no_longer(self) -> None:
        self.station.change_pool(concurrency_limit=1)
        self.station.tells(self.station.run(), Pending())
        self.station.forget_worker()
        assert self.after(POOL_SECONDS, Scheduled()) == self.refused


class TestWatch:
    """A child looks after itself: it asks for its own stop once its run or its job's is over."""

    def test_a_job_that_is_over_already_stops_its_child_before_it_begins(
        self, client: SyncPrefectClient, run: FlowRun
    ) -> None:
        client.set_flow_run_state(run.id, Crashed())
        stop = Stop()
        with Watch((run.id,), stop.set, every_seconds=3600):
            assert stop.is_set

    @pytest.mark.parametrize("state", [Cancelling(), Cancelled(), Crashed(), Failed(), Completed()])
    def test_a_job_that_ends_stops_its_child(
        self, client: SyncPrefectClient, run: FlowRun, state: State
    ) -> None:
        own = client.create_flow_run(stream_disk, parameters={}, state=Running())
        stop = Stop()
        with Watch((own.id, run.id), stop.set, every_seconds=0.05):
            assert not stop.is_set
            client.set_flow_run_state(run.id, state)
            wait_for("the stop", lambda: stop.is_set)

    def test_a_job_that_is_deleted_stops_its_child(self, client: SyncPrefectClient, run: FlowRun) -> None:
        stop = Stop()
        with Watch((run.id,), stop.set, every_seconds=0.05):
            client.delete_flow_run(run.id)
            wait_for("the stop", lambda: stop.is_set)

    def test_a_server_that_is_away_stops_nobody(self, run: FlowRun) -> None:
        stop = Stop()
        looked = threading.Event()
        with temporary_settings({PREFECT_API_URL: NOBODY}):
            watch = Watch((run.id,), stop.set, every_seconds=0.01)
            with watch:
                looked.wait(0.5)
        assert not stop.is_set


def test_cancelling_ends_what_has_not_begun_and_says_what_goes_on(
    client: SyncPrefectClient, stations: list[Station], run: FlowRun
) -> None:
    waits, over = stations[0].run(), stations[0].run()
    stations[0].tells(over, Crashed())
    claimed = stations[1].run()
    stations[1].tells(claimed, Pending())
    assert cancel([waits.id, over.id, claimed.id, UUID(int=1)], wait_seconds=5)
    names = [client.read_flow_run(each.id).state_name for each in (waits, over, claimed)]
    assert names == ["Cancelled", "Crashed", "Cancelling"]
    assert not cancel([run.id], wait_seconds=0)
    assert client.read_flow_run(run.id).state_name == "Cancelling"
    client.set_flow_run_state(run.id, Cancelled())
    assert cancel([run.id], wait_seconds=0)


def test_children_are_all_found_though_others_end_while_they_are_asked_for(
    client: SyncPrefectClient, run: FlowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the server says at once; five of its first page end before the next is asked for."""
    caller = client.create_task_run(carry_out, run.id, dynamic_key="0")
    made = [
        client.create_flow_run(stream_disk, parameters={}, parent_task_run_id=caller.id, state=Scheduled())
        for _ in range(SERVER_PAGE + 10)
    ]
    ended: list[UUID] = []
    read_flow_runs = SyncPrefectClient.read_flow_runs

    def read_and_end_some(asking: SyncPrefectClient, **asked: Any) -> list[FlowRun]:
        page = read_flow_runs(asking, **asked)
        if not ended:
            ended.extend(each.id for each in page[:5])
            for each in ended:
                client.set_flow_run_state(each, Cancelled())
        return page

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", read_and_end_some)
    found = children_of(run.id)
    assert set(found) - set(ended) == {each.id for each in made} - set(ended)
    assert len(found) == len(set(found))
    assert set(children_of(run.id)) == {each.id for each in made} - set(ended)


def test_a_run_says_that_it_has_ended_only_when_it_is_being_cancelled(
    client: SyncPrefectClient, run: FlowRun
) -> None:
    say_cancelled(run.id)
    assert client.read_flow_run(run.id).state_name == "Running", (
        "its worker may tell it to end for other reasons"
    )
    client.set_flow_run_state(run.id, Cancelling())
    say_cancelled(run.id)
    say_cancelled(run.id)
    assert client.read_flow_run(run.id).state_name == "Cancelled"
    say_cancelled(UUID(int=1))
    with temporary_settings({PREFECT_API_URL: NOBODY}):
        say_cancelled(run.id)


class Carried:
    """A stream on its way over the stations, whose workers the test plays."""

    def __init__(self, site: Site, job: FlowRun, stations: Sequence[Station], **proxy: Any) -> None:
        self.stations = stations
        block = BackupSubclient.named(site.name)
        proxies = [station.proxy.model_copy(update=proxy) for station in stations]
        self.job = BackupJob(
            str(job.id),
            subclient=block.settings,
            connection=block.subscription.connection(),
            media=block.media.open(write=True),
            proxies=proxies,
            scratch=site.folder,
        )
        self.streams = ProxyStreams(self.job, site.name, proxies)
        self.order = an_order("os", job=self.job.id, media=self.job.media.id, proxy=proxies[0].name)
        context = contextvars.copy_context()
        self._pool = ThreadPoolExecutor(1)
        self._backup = self._pool.submit(context.run, self.streams.carry, self.order)

    def leaves_word(self, run: FlowRun, outcome: StreamOutcome | None = None) -> None:
        """What the child's process does in the end."""
        keep_outcome(
            self.job.media,
            outcome or its_outcome(self.order),
            run=self.order.run,
            disk_key=self.order.disk.key,
            attempt=run.id,
        )

    def result(self) -> DiskBackup:
        return self._backup.result(SECONDS)

    def is_waiting(self, seconds: float) -> bool:
        """Whether it still is after so long."""
        return not futures.wait([self._backup], timeout=seconds).done

    def end(self) -> None:
        self.job.stop.set()
        self._pool.shutdown()


@pytest.fixture
def carried(
    site: Site, run: FlowRun, stations: list[Station], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Carried]]:
    """Begins to carry one stream, to the first station first."""
    begun: list[Carried] = []
    monkeypatch.setattr(child_runs, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(proxies, "ASK_AGAIN_SECONDS", 0.1)
    site.save_blocks()

    def begin(**proxy: Any) -> Carried:
        begun.append(Carried(site, run, stations, **proxy))
        return begun[-1]

    yield begin
    for item in begun:
        item.end()


Begin = Callable[..., Carried]


def test_a_stream_comes_back_by_way_of_the_media(carried: Begin, stations: list[Station]) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stream.leaves_word(child)
    stations[0].tells(child, Completed())
    assert stream.result() == its_outcome(stream.order).backup
    assert stream.streams.children == {stream.order.disk.key: child.id}


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        (Crashed(message="killed by signal 9"), "died: os of web via .*: killed by signal 9"),
        (Failed(name=UNFIT, message="other media is mounted"), "not started: other media is mounted"),
    ],
)
def test_a_proxy_that_dies_or_is_unfit_gives_way_to_the_next(
    carried: Begin, stations: list[Station], ending: State, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = carried()
    first = stations[0].takes()
    stations[0].tells(first, Running())
    stations[0].tells(first, ending)
    second = stations[1].takes()
    stations[1].tells(second, Running())
    stream.leaves_word(second)
    stations[1].tells(second, Completed())
    assert stream.result()
    assert stream.streams.children == {stream.order.disk.key: second.id}
    (said,) = [record.message for record in caplog.records if "goes on to proxy" in record.message]
    assert re.match(
        f"proxy {stations[0].proxy.name} {how}; disk os goes on to proxy {stations[1].proxy.name}", said
    )


def test_a_stream_that_kills_every_proxy_comes_to_an_end_with_all_reasons(
    carried: Begin, stations: list[Station]
) -> None:
    stream = carried()
    for station in (*stations, *stations):
        child = station.takes()
        station.tells(child, Running())
        station.tells(child, Crashed(message="no memory left"))
    with pytest.raises(StreamFailed, match="no proxy could carry its stream") as failed:
        stream.result()
    assert str(failed.value).count("no memory left") == 4


def test_what_a_child_left_word_of_before_it_died_is_not_done_again(
    carried: Begin, stations: list[Station]
) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stream.leaves_word(child)
    stations[0].tells(child, Crashed())
    assert stream.result()
    assert stations[1].runs() == []


def test_a_stream_that_failed_where_it_ran_is_not_moved(carried: Begin, stations: list[Station]) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stream.leaves_word(child, StreamOutcome(error="Azure refused to read it"))
    stations[0].tells(child, Failed(message="disk os of web: Azure refused to read it"))
    with pytest.raises(StreamFailed, match=r"^Azure refused to read it$"):
        stream.result()
    assert stations[1].runs() == []


def test_a_child_that_ends_without_a_word_fails_its_stream(carried: Begin, stations: list[Station]) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stations[0].tells(child, Completed(message="1 of 1"))
    with pytest.raises(
        StreamFailed, match=r"left no word on the media; its run .* ended as Completed: 1 of 1"
    ):
        stream.result()


def test_a_child_that_somebody_cancels_fails_its_stream(carried: Begin, stations: list[Station]) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stations[0].tells(child, Cancelled())
    name = stations[0].proxy.name
    with pytest.raises(StreamFailed, match=rf"its stream was cancelled: .* on proxy {name}"):
        stream.result()
    assert stations[1].runs() == []


def test_a_child_whose_machine_died_while_it_was_cancelled_does_not_hold_its_stream_for_ever(
    carried: Begin, stations: list[Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_runs, "CANCEL_SECONDS", 1.0)
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stations[0].tells(child, Cancelling())
    stations[0].tells(child, Crashed(message="its heartbeat stopped"))
    assert stations[0].state_of(child) == "Cancelling", "Prefect takes nothing but Cancelled"
    with pytest.raises(StreamFailed, match="its stream was cancelled"):
        stream.result()


def test_a_proxy_that_is_refused_when_its_turn_comes_is_asked_for_nothing(
    carried: Begin, stations: list[Station]
) -> None:
    stations[0].change_pool(is_paused=True)
    stream = carried()
    child = stations[1].takes()
    stations[1].tells(child, Running())
    stream.leaves_word(child)
    stations[1].tells(child, Completed())
    assert stream.result()
    assert stations[0].runs() == []


def test_a_stream_waits_a_while_for_proxies_that_all_refuse(carried: Begin, stations: list[Station]) -> None:
    for station in stations:
        station.change_pool(is_paused=True)
    stream = carried()
    assert stream.is_waiting(2)
    stations[1].change_pool(is_paused=False)
    child = stations[1].takes()
    stations[1].tells(child, Running())
    stream.leaves_word(child)
    stations[1].tells(child, Completed())
    assert stream.result()


def test_streams_that_look_for_a_proxy_at_the_same_time_ask_the_server_once(
    stations: list[Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[Proxy]] = []

    def ask(found: Sequence[Proxy]) -> list[Proxy]:
        asked.append(found)
        return seen_by_prefect(found)

    monkeypatch.setattr(proxies, "seen_by_prefect", ask)
    now = 0.0
    lookout = proxies._Lookout([station.proxy for station in stations], Stop(), lambda: now)
    assert [proxy.refusal for proxy in lookout.proxies()] == ["", ""]
    stations[1].change_pool(is_paused=True)
    assert [proxy.refusal for proxy in lookout.proxies()] == ["", ""]
    assert len(asked) == 1
    now = proxies.ASK_AGAIN_SECONDS
    first, second = lookout.proxies()
    assert first.refusal == ""
    assert "is paused" in second.refusal
    assert len(asked) == 2


def test_a_stream_that_no_proxy_could_carry_if_it_came_back_fails_at_once(
    carried: Begin, stations: list[Station], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "RETURN_SECONDS", 10 * SECONDS)
    stream = carried()
    for station in stations:
        child = station.takes()
        station.tells(child, Running())
        station.tells(child, Failed(name=UNFIT, message="other media is mounted"))
    with pytest.raises(
        StreamFailed, match=r"no proxy could carry its stream: .*other media is mounted.*other"
    ):
        stream.result()


def test_a_proxy_that_does_not_begin_in_time_loses_the_stream_for_good(
    carried: Begin, stations: list[Station]
) -> None:
    stream = carried(start_seconds=2)
    second = stations[1].takes()
    stations[1].tells(second, Running())
    (first,) = stations[0].runs()
    assert first.state_name == "Cancelled"
    stations[1].tells(second, Crashed(message="killed"))
    again = stations[1].takes()
    stations[1].tells(again, Running())
    stream.leaves_word(again)
    stations[1].tells(again, Completed())
    assert stream.result()
    assert len(stations[0].runs()) == 1


def test_a_stop_cancels_the_child_and_waits_for_its_end(carried: Begin, stations: list[Station]) -> None:
    stream = carried()
    child = stations[0].takes()
    stations[0].tells(child, Running())
    stream.job.stop.set()
    wait_for("the child to be cancelled", lambda: stations[0].state_of(child) == "Cancelling")
    assert stream.is_waiting(2)
    stations[0].tells(child, Cancelled())
    with pytest.raises(RunStopped):
        stream.result()
    assert stations[1].runs() == []


def stream_through_this_process(order: StreamOrder, site: Site) -> State:
    return stream_disk(subclient=site.name, streams=[order], return_state=True)


def test_a_proxy_that_finds_other_media_in_that_place_is_unfit(site: Site, run: FlowRun) -> None:
    site.save_blocks()
    state = stream_through_this_process(an_order("os", job=str(run.id), media="f" * 32), site)
    assert (state.type.value, state.name) == ("FAILED", UNFIT)
    assert f"this proxy finds {site.media.id}, the job writes {'f' * 32}" in str(state.message)


def test_a_child_that_begins_when_its_job_is_over_does_nothing(
    client: SyncPrefectClient, site: Site, run: FlowRun
) -> None:
    site.save_blocks()
    client.set_flow_run_state(run.id, Cancelled())
    asked = len(site.control.requests())
    state = stream_through_this_process(an_order("os", job=str(run.id), media=site.media.id), site)
    assert state.name == "Cancelled"
    assert len(site.control.requests()) == asked, "Azure was not even asked for a token"
    assert list(site.media.runs()) == []
