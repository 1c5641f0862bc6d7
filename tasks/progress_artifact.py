"""One progress artifact of one task run on the Prefect server."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    ArtifactFilterTaskRunId,
)
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import ArtifactSort


class ProgressArtifact:
    """Creates the artifact with its first value and updates it from then on.

    A task run that is repeated keeps its id, so its next attempt finds the artifact of the one before.
    """

    def __init__(self, key: str, task_run: TaskRun) -> None:
        self._key = key
        self._task_run = task_run
        self._id: UUID | None = None
        self._may_exist = task_run.run_count > 1

    def show(self, percent: float, description: str) -> None:
        """Tell the server; `description` is Markdown. Raises what Prefect's client does, after its retries.

        The client is that of the running task if this is called in its context. Making another one loads all
        certificates, which takes a tenth of a second.
        """
        client = get_client(sync_client=True)
        if self._id is None and self._may_exist:
            self._id = self._find(client)
        if self._id is not None:
            client.update_artifact(self._id, ArtifactUpdate(data=percent, description=description))
            return
        # From now on there may be one, even if no answer says so.
        self._may_exist = True
        self._id = self._create(client, percent, description)

    def _find(self, client: SyncPrefectClient) -> UUID | None:
        mine = ArtifactFilter(
            key=ArtifactFilterKey(any_=[self._key]),
            task_run_id=ArtifactFilterTaskRunId(any_=[self._task_run.id]),
        )
        found = client.read_artifacts(artifact_filter=mine, sort=ArtifactSort.CREATED_DESC, limit=1)
        return found[0].id if found else None

    def _create(self, client: SyncPrefectClient, percent: float, description: str) -> UUID:
        return client.create_artifact(
            ArtifactCreate(
                key=self._key,
                type="progress",
                description=description,
                data=percent,
                task_run_id=self._task_run.id,
                flow_run_id=self._task_run.flow_run_id,
            )
        ).id
