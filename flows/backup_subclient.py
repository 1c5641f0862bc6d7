"""Back up the VMs that a subclient selects: the documented process, stage by stage.

One recovery point for each VM, committed as soon as all of that VM's disks are on the media. A failing disk
costs its own VM the point and nobody else. What a run leaves in Azure is removed by tasks in `finally`, by
the hooks below when the flow's process has died, and by the next job on the same disks.

Each disk's stream runs on a proxy, in a child run of the job in that proxy's work pool; without a Prefect
server, or if the job is told so, in the job's own process.

    python -m flows.backup_subclient NAME [--method crc] [--full] [--in-process] [--preview]
    prefect deployment run 'backup-subclient/NAME'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Timer
from typing import Any, Literal
from uuid import UUID, uuid4

from prefect import flow, runtime
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal
from prefect.flows import Flow
from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.proxy import saved_proxies
from blocks.subclient import BackupSubclient
from tasks.cleanup import complete_job, release_bases, release_dead_runs
from tasks.clients import create_client_entries
from tasks.discover import discover_vms
from tasks.disks import identify_disks
from tasks.ending import WITH_ERRORS, WORKER_SECONDS, is_under_worker, seconds_to_end, tell, why_cut_short
from tasks.flow_runs import NO_ANSWER, end_children, has_server, is_being_cancelled
from tasks.logs import show_engine_logs
from tasks.outage import answered
from tasks.pools import seen_by_prefect, warn_unless_deaths_are_noticed
from tasks.proxies import ProxyStreams
from tasks.report import show_report, show_report_of_stopped
from tasks.scratch import make_scratch, remove_scratch
from tasks.signals import heard_at_once
from tasks.streams import assign_streams
from tasks.targets import identify_targets
from tasks.transfer import InProcess, Streams
from tasks.vm_run import VmRun, reason_of
from tasks.watch import Watch
from tasks.waves import some_at_a_time
from tasks.witness import check_witness, keep_witness
from vsa.errors import VsaError
from vsa.media.entries import JobEntry, ReleasedBase, Result
from vsa.media.index import Offer
from vsa.media.media import Media
from vsa.model import Exclusion, Method
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob, Discovery, VmDisks
from vsa.transfer.clones import LONGEST, Clones, new_images
from vsa.transfer.proxies import Proxy
from vsa.transfer.report import vm_outcome

# Tasks that wait for others hold a thread; the streams themselves are limited by each proxy's own slots.
THREADS = 256
# VMs whose disks are looked at, and VMs that are snapshotted, at one time: Azure counts such requests.
AT_ONCE = 32
HOOK_SECONDS = 1800.0
"""For the hook to clean up; until it ends, a job that was cancelled is shown as being cancelled."""
AGAIN_SECONDS = 4.0
"""The same in the job's own process, which has cleaned up for as long as it could and is killed soon."""

_cut_short: set[str] = set()
"""Jobs that ended before their time in this process: Prefect calls the hook here, too."""


def clean_up_after(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook for runs that were cancelled or crashed: their process is gone, what it began is not."""
    logger = flow_run_logger(flow_run, flow)
    logger.info("Cleaning up after %s", state.name)
    show_engine_logs(str(flow_run.id))
    # Before the job is opened, which may fail: nothing is to be read while it is deleted.
    end_children(flow_run.id)
    job = _open_job(flow_run.parameters["subclient"], str(flow_run.id))
    job.end_within(AGAIN_SECONDS if job.id in _cut_short else HOOK_SECONDS)
    released = job.release_all()
    for message in released.pending:
        logger.error("%s", message)
    report = job.report_stopped(
        f"the job's process ended before the job did: {state.name}", released, started_at=flow_run.start_time
    )
    remove_scratch(job.id)
    for show in (
        partial(show_report_of_stopped, report, flow_run.id, location=job.media.location),
        partial(_keep_sound_witness, job.media),
    ):
        # What people and the next job see of it, apart from the log: one that fails keeps not the other.
        try:
            show()
        except (VsaError, *NO_ANSWER) as error:
            logger.warning("%s", error)


def _keep_sound_witness(media: Media) -> None:
    """As a job does, which asks first whether the log is still the one that is remembered."""
    check_witness.fn(media)
    keep_witness.fn(media)


@flow(
    name="backup-subclient",
    flow_run_name="back up {subclient}",
    description="Back up the VMs that a subclient selects.",
    task_runner=ThreadPoolTaskRunner(max_workers=THREADS),  # type: ignore[arg-type]
    on_cancellation=[clean_up_after],
    on_crashed=[clean_up_after],
    persist_result=False,
)
def backup_subclient(
    subclient: str = Field(description="Name of the Subclient block."),
    method: Literal["cbt", "crc"] | None = Field(
        default=None, description="Overrides the subclient's method for this job alone."
    ),
    full: bool = Field(default=False, description="Read every allocated extent and build on nothing."),
    stop_after_minutes: int | None = Field(
        default=None,
        ge=1,
        description="Stop what has not been backed up by then; VMs that are done keep their recovery points.",
    ),
    in_process: bool = Field(
        default=False,
        description="Run all streams in the job's own process instead of on proxies.",
    ),
) -> State[JobEntry]:
    """Run one backup job and say how it ended: completed, completed with errors, or failed."""
    own = str(runtime.flow_run.id or uuid4())
    try:
        watched = (UUID(own),) if has_server() else ()
        in_process = in_process or not watched
        job = _open_job(
            subclient,
            own,
            proxies=saved_proxies() if in_process else seen_by_prefect(saved_proxies()),
            method=method,
            full=full,
        )
    except VsaError as error:
        return Failed(message=str(error))
    try:
        check_witness(job.media)
    except VsaError as error:
        job.clean_scratch()
        return Failed(message=str(error))
    get_run_logger().info("Job %s backs up to media %s at %s", job.id, job.media.id, job.media.location)
    stopped = partial(_stop_as_told, job, watched, under_worker=is_under_worker())
    # Nobody but the server tells a job that was started by hand that somebody has cancelled it.
    with heard_at_once(), _stopped_after(stop_after_minutes, job.stop), Watch(watched, stopped):
        report = _Story(job, subclient, in_process=in_process).run()
    if any(map(is_being_cancelled, watched)):
        return Cancelled(message=_message(report), data=report)
    return _final_state(report)


class _Story:
    """The job as it unfolds; what it knows when it ends decides what is reported."""

    def __init__(self, job: BackupJob, subclient: str, *, in_process: bool) -> None:
        self._job = job
        self._subclient = subclient
        self._in_process = in_process
        self._streams: Streams = InProcess(job)
        self._discovery: Discovery | None = None
        self._disks: list[VmDisks] = []
        self._excluded: list[Exclusion] = []
        self._runs: list[VmRun] = []
        self._proxies: dict[str, str] = {}
        self._alarms: list[str] = []

    def run(self) -> JobEntry:
        """All stages; stage 8 is the last one, whatever happened before."""
        told = False
        try:
            self._backup()
        except VsaError as error:
            self._alarms.append(str(error))
        except BaseException as error:
            told = isinstance(error, TerminationSignal)
            # Nobody kills a process because its flow ran out of time or met an error: it has all the time.
            if told or isinstance(error, KeyboardInterrupt):
                self._job.end_within(seconds_to_end())
                _cut_short.add(self._job.id)
            self._alarms.append(why_cut_short(error))
            raise
        finally:
            report = self._end()
            # Told to end, it is killed soon: then the hook shows what the log says.
            if not told:
                self._show(report)
        return report

    def _show(self, report: JobEntry) -> None:
        """What people and the next job see of this one, apart from the log."""
        keep_witness(self._job.media, return_state=True)
        children = {disk: str(child) for disk, child in self._streams.children.items()}
        location = self._job.media.location
        show_report(report, self._proxies, streams=children, location=location, return_state=True)

    def _backup(self) -> None:
        """Stages 1 to 7."""
        job = self._job
        self._alarms += release_dead_runs(job)
        self._discovery = discovery = discover_vms(job)
        self._excluded += discovery.excluded
        create_client_entries(job, discovery)
        targets = identify_targets(job, discovery)
        self._excluded += targets.excluded
        if not self._in_process:
            self._streams = ProxyStreams(job, self._subclient, targets.proxies)
            answered(warn_unless_deaths_are_noticed, job.stop)

        looked_at = some_at_a_time(
            lambda vm: identify_disks.submit(job, vm), targets.vms, at_once=AT_ONCE, stop=job.stop
        )
        identified = {vm.key: future for vm, future in looked_at}
        self._disks = [_disks_or_error(vm, identified[vm.key]) for vm in targets.vms]
        ready = [item for item in self._disks if not item.error]
        self._proxies = {a.disk_key: a.proxy for a in assign_streams(job, ready, targets.proxies)}

        clones = self._clones(ready)
        self._runs = [VmRun(job, job.new_run(item), self._proxies, self._streams.carry) for item in ready]
        # As they come: a VM that waits ten minutes for a premium snapshot holds up nobody else, as long as
        # AT_ONCE of them do not wait together.
        snapped = some_at_a_time(
            VmRun.begin,
            self._runs,
            at_once=AT_ONCE,
            stop=job.stop,
            after=lambda vm_run: vm_run.after(clones),
            longest=LONGEST,
        )
        for vm_run, _ in snapped:
            if clones.goes_first(vm_run):
                self._streams.keep_apart(vm_run.run.id)
            vm_run.transfer_and_commit()
        wait([vm_run.released for vm_run in self._runs if vm_run.released is not None])

    def _clones(self, disks: Sequence[VmDisks]) -> Clones[VmRun]:
        """Streams of one process find each other's data as it is."""
        offer = Offer.OFF if self._in_process else Offer(self._job.subclient.deduplication)
        images = new_images(self._job.media.view(), disks, offer)
        return Clones(images, lambda vm_run: vm_run.has_point)

    def _end(self) -> JobEntry:
        """Stage 8: streams first, then what they leave behind, then the report."""
        job = self._job
        job.stop.set()
        # Those that waited for another's point need not wait for its streams, which may take all the time.
        for vm_run in self._runs:
            if vm_run.is_unread:
                vm_run.release()
        for vm_run in self._runs:
            vm_run.wait()
        self._streams.end()
        for vm_run in self._runs:
            vm_run.release()
        self._alarms += [message for vm_run in self._runs for message in vm_run.end()]
        self._proxies |= {backup.disk.key: backup.proxy for vm_run in self._runs for backup in vm_run.backups}
        self._alarms += [*job.doubts(), *job.harms(self._disks)]
        released = self._release_bases()
        outcomes = [vm_run.outcome() for vm_run in self._runs]
        outcomes += [vm_outcome(item.vm, error=item.error) for item in self._disks if item.error]
        excluded = [*self._excluded, *(e for item in self._disks for e in item.excluded)]
        return complete_job(job, outcomes, excluded, released, self._alarms)

    def _release_bases(self) -> Sequence[ReleasedBase]:
        """What was released; what Azure keeps is an alarm, and the next job's to repeat."""
        state = release_bases(self._job, self._discovery, self._disks, return_state=True)
        if state.is_completed():
            let_go = state.result()
            self._alarms += let_go.pending
            return let_go.released
        self._alarms.append(f"bases that are no longer needed are still there: {state.message}")
        return ()


def _disks_or_error(vm: Any, future: PrefectFuture[VmDisks]) -> VmDisks:
    if future.state.is_completed():
        return future.result()
    return VmDisks(vm=vm, error=reason_of(future))


def _open_job(
    name: str,
    job_id: str,
    *,
    proxies: Sequence[Proxy] = (),
    method: str | None = None,
    full: bool = False,
) -> BackupJob:
    """Load the block and open what it names: the only place of the flow that does."""
    show_engine_logs(job_id)
    block = BackupSubclient.named(name)
    return BackupJob(
        job_id,
        subclient=block.settings,
        connection=block.subscription.connection(),
        media=block.media.open(write=True),
        proxies=proxies,
        scratch=make_scratch(job_id),
        method=Method(method) if method else None,
        full=full,
    )


def _stop_as_told(job: BackupJob, flow_runs: Sequence[UUID], *, under_worker: bool) -> None:
    """Stop because the server says that the run is over. Only what was cancelled is killed, by a worker."""
    # At once: whether it was cancelled may take the server a while to say.
    job.stop.set()
    if under_worker and any(map(is_being_cancelled, flow_runs)):
        job.end_within(WORKER_SECONDS)


@contextmanager
def _stopped_after(minutes: int | None, stop: Stop) -> Iterator[None]:
    """Ask for a stop after so many minutes, if any are given."""
    if minutes is None:
        yield
        return
    timer = Timer(minutes * 60, stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _message(report: JobEntry) -> str:
    done = sum(outcome.point is not None for outcome in report.vms)
    lines = [f"{done} of {len(report.vms)} VMs have a recovery point."]
    lines += [f"{outcome.name}: {outcome.error}" for outcome in report.vms if outcome.error]
    return "\n".join([*lines, *report.alarms])


def _final_state(report: JobEntry) -> State[JobEntry]:
    message = _message(report)
    if report.result is Result.COMPLETED:
        return Completed(message=message, data=report)
    if report.result is Result.COMPLETED_WITH_ERRORS:
        return Completed(name=WITH_ERRORS, message=message, data=report)
    return Failed(message=message, data=report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job in this process; exit code 0 completed, 3 completed with errors, 1 failed.

    With --preview nothing is run: it says what the subclient selects and why.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.backup_subclient", description=__doc__)
    parser.add_argument("subclient", help="name of the Subclient block")
    parser.add_argument("--method", choices=[Method.CBT.value, Method.CRC.value])
    parser.add_argument("--full", action="store_true", help="read every allocated extent")
    parser.add_argument("--in-process", action="store_true", help="use no work pools, stream in this process")
    parser.add_argument("--preview", action="store_true", help="say what is selected and why, touch nothing")
    options = parser.parse_args(arguments)
    if options.preview:
        return _preview(options.subclient)
    state = backup_subclient(
        options.subclient,
        method=options.method,
        full=options.full,
        in_process=options.in_process,
        return_state=True,
    )
    return tell(state)


def _preview(subclient: str) -> int:
    try:
        job = _open_job(subclient, str(uuid4()))
        text = job.preview()
    except VsaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    job.clean_scratch()
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
