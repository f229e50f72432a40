"""How often Python looks for garbage in a serving process: what it holds lives long, and requests leave few rings."""

import gc
from typing import Final

_NEW_OBJECTS: Final = 20_000  # a batch of events makes several thousand, which go by themselves when it is answered
_YOUNG: Final = 20
_OLD: Final = 50


def settle() -> None:
    """Leave all that is there now out of every collection, and collect more seldom: each keeps a request waiting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNG, _OLD)
