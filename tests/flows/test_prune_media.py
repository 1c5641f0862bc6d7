"""The flow that keeps media: it says its plan, then forgets and prunes, and only that."""

from __future__ import annotations

from flows.prune_media import prune_media
from tasks.witness import kept_witness
from tests.engine.world import KIB, random_bytes
from tests.flows.prefect_server import flow_run_of, messages_of, wait_for
from tests.flows.site import Site, managed
from vsa.retention import Retention
from vsa.upkeep.forgetting import unforget


def test_retention_is_applied_and_media_pruned_after_the_plan_was_said(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(retention=Retention(keep_last=1))
    for turn in range(2):
        site.write("web-os", turn * 64 * KIB, random_bytes(64 * KIB, turn))
        site.back_up(full=True)
    oldest, *kept = site.points_of("web")
    dry = prune_media(site.name, dry_run=True, return_state=True)
    assert dry.name == "Completed", dry.message
    assert not site.media.view().forgotten

    state = prune_media(site.name, return_state=True)
    assert state.name == "Completed", state.message
    assert set(site.media.view().forgotten) == {oldest}
    assert kept_witness(site.media) == site.media.view().witness
    unforget(site.media, [oldest])

    state = prune_media(site.name, grace_days=0.0, return_state=True)
    assert state.name == "Completed", state.message
    assert set(site.media.view().points) == set(kept)
    assert site.media.view().given_up == {oldest}
    site.require_restorable(kept[-1])
    for words in ("would be forgotten", f"Points given up  {oldest}"):
        wait_for(f"{words!r} in the log", lambda words=words: _said(state, words))


def _said(state: object, words: str) -> bool:
    messages = messages_of(flow_run_of(state))  # type: ignore[arg-type]
    return any(words in message for message in messages)


def test_more_than_half_at_once_is_refused_and_what_is_forgotten_is_pruned(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(retention=Retention(keep_last=1))
    for _ in range(3):
        site.back_up()
    state = prune_media(site.name, return_state=True)
    assert state.name == "Completed with errors"
    assert "2 of the 3 points of web would be forgotten" in state.message
    assert not site.media.view().forgotten


def test_an_unknown_media_fails_with_the_names_there_are(site: Site) -> None:
    site.save_blocks()
    state = prune_media("nobody", return_state=True)
    assert state.is_failed() and site.name in state.message
