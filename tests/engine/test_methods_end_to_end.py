from __future__ import annotations

from pathlib import Path

from tests.engine.world import KIB, MIB, World, random_bytes
from vsa.model import Method, Reason


def test_full_then_cbt(world: World, tmp_path: Path) -> None:
    contents = random_bytes(3 * MIB, 1) + bytes(5 * MIB) + random_bytes(MIB, 2)
    world.add_vm([{"name": "os", "managed": True, "sku": "Premium_LRS", "contents": contents}])
    first = world.back_up()
    print(first.model_dump_json(indent=1))
    world.write("os", 4 * MIB, random_bytes(8 * KIB, 3))
    world.control.clear("os", 0, MIB)
    second = world.back_up()
    print(second.model_dump_json(indent=1))
