"""Other engines, asked what Plangate is asked. They are measured when they are installed and never needed otherwise."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import msgspec

from benchmarks.population import Asked, Population
from plangate.engine.facts import UserFacts

# Module of the engine, the module here that speaks to it, and what else that needs.
_KNOWN = (("growthbook", "benchmarks.peers.growthbook", ()), ("schematic", "benchmarks.peers.schematic", ("wasmtime",)))


class Contender(msgspec.Struct, kw_only=True):
    """One engine: answering many questions in a row, and one. `share` of a round's questions is enough for it."""

    name: str
    run: Callable[[list[Asked]], None]
    ask: Callable[[str, str, UserFacts | None], bool]
    share: float = 1.0


def installed_peers(population: Population) -> list[Contender]:
    """The engines that can be imported here, each filled with the same companies."""
    found: list[Contender] = []
    for module, adapter, needed in _KNOWN:
        if all(find_spec(name) is not None for name in (module, *needed)):
            contender = import_module(adapter).contender(population)
            if not isinstance(contender, Contender):
                raise TypeError(f"{adapter} makes no contender")
            found.append(contender)
    return found
