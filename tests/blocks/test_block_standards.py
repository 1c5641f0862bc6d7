"""Prefect's own standards for blocks, for each of ours."""

from __future__ import annotations

from typing import ClassVar

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from blocks.subclient import BackupSubclient


class Standards(BlockStandardTestSuite):
    """Without what needs a place on the web, which the project does not have: documentation and a logo."""

    kind: ClassVar[type[Block]]
    test_has_a_documentation_url = None
    test_has_a_valid_image = None

    @pytest.fixture
    def block(self) -> type[Block]:
        return self.kind


class TestAzureSubscription(Standards):
    kind = AzureSubscription


class TestBackupMedia(Standards):
    kind = BackupMedia


class TestBackupProxy(Standards):
    kind = BackupProxy


class TestBackupSubclient(Standards):
    kind = BackupSubclient
