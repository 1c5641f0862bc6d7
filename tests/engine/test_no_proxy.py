"""A job without a proxy ends before anything is begun, and its end says what to do."""

from __future__ import annotations

import pytest

from tests.engine.story import run_job
from tests.engine.world import MIB, PROXIES, World, random_bytes
from vsa.errors import BadRequest
from vsa.transfer.leftovers import intents_of_job


def test_no_usable_proxy_ends_the_job_with_every_reason_before_a_snapshot_is_made(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    job = world.job()
    reasons = ("work pool proxy-a is paused", "work pool proxy-b has never had a worker")
    job.proxies = tuple(
        proxy.model_copy(update={"refusal": reason}) for proxy, reason in zip(PROXIES, reasons, strict=True)
    )
    with pytest.raises(BadRequest) as refused:
        run_job(job)
    assert str(refused.value) == (
        f"subclient tests has no usable proxy: proxy-a: {reasons[0]}; proxy-b: {reasons[1]}"
    )
    assert not list(intents_of_job(job.id, world.media)), "a run announced snapshots"
    assert not world.snapshots
    world.back_up()
    world.require_sound()
