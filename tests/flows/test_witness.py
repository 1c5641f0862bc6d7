"""Prefect remembers the media's witness: a media that was put back gets no job until somebody agrees."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from prefect.variables import Variable

from flows.prune_media import prune_media
from flows.verify_media import verify_media
from tasks.witness import check_witness, keep_witness, kept_witness, variable_of
from tests.flows.site import Site, managed
from tests.media.making import flip_bit, new_media
from tests.media.test_log import seen
from vsa.errors import BadRequest, MediaPutBack
from vsa.media import layout
from vsa.media.media import Media


def test_media_that_was_put_back_is_refused_before_anything_is_done(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    earlier = site.folder / "earlier"
    shutil.copytree(site.media_folder, earlier)
    assert site.back_up().name == "Completed"
    witness = site.media.view().witness
    assert kept_witness(site.media) == witness
    before = site.snapshots

    shutil.rmtree(site.media_folder)
    shutil.copytree(earlier, site.media_folder)
    # As a prune sees it, packs of the points that are missing from the log are needed by nobody.
    for state in (
        site.back_up(),
        prune_media(site.name, return_state=True),
        verify_media(site.name, return_state=True),
    ):
        assert (state.type.value, str(witness) in str(state.message)) == ("FAILED", True)
        assert f"prefect variable unset {variable_of(site.media)}" in str(state.message)
    put_back = Media.open(str(site.media_folder))
    assert (put_back.view().head, site.snapshots) == (0, before)
    assert kept_witness(site.media) == witness

    Variable.unset(variable_of(site.media))
    check_witness.fn(put_back)


def test_a_damaged_log_is_reported_as_such_and_nobody_is_told_to_forget_what_was_seen(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    assert site.back_up().name == "Completed"
    flip_bit(site.media_folder / layout.slot(1), 100)
    state = verify_media(site.name, return_state=True)
    assert state.is_failed()
    assert "LOG DAMAGED" in str(state.message)
    assert "prefect variable unset" not in str(state.message)


def test_whoever_ends_last_the_highest_witness_is_kept(site: Site) -> None:
    def end_a_job(number: int) -> None:
        media = Media.open(str(site.media_folder), write=True)
        media.append(seen(f"vm-{number}"))
        keep_witness.fn(media)

    # Which Prefect is meant is said by the context of this thread.
    contexts = [copy_context() for _ in range(12)]
    with ThreadPoolExecutor(4) as jobs:
        list(jobs.map(lambda context, number: context.run(end_a_job, number), contexts, range(12)))
    assert kept_witness(site.media) == site.media.view().witness
    behind = Media.open(str(site.media_folder))
    behind.view()
    site.media.append(seen("newer"))
    keep_witness.fn(site.media)
    keep_witness.fn(behind)
    assert kept_witness(site.media) == site.media.view().witness


def test_each_media_has_a_witness_of_its_own(site: Site) -> None:
    other = new_media(site.folder / "other")
    other.append(seen("a"))
    keep_witness.fn(other)
    check_witness.fn(site.media)
    check_witness.fn(other)
    Variable.set(variable_of(site.media), str(kept_witness(other)))
    with pytest.raises(MediaPutBack, match="has no such slot"):
        check_witness.fn(site.media)


def test_what_is_no_witness_is_said(site: Site) -> None:
    Variable.set(variable_of(site.media), "yesterday")
    with pytest.raises(BadRequest, match=variable_of(site.media)):
        check_witness.fn(site.media)
