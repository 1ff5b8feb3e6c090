"""``--policy free``: memory shared by all layers (``docs/replicas.md``).

``room`` says how many slots the layers may have together, ``scouting`` plans all layers
with one number of slots after the other, ``rungs`` keeps what each layer was seen with
and picks the best that there is room for, ``freeing`` shares out the time.
"""

from planner.pipeline.free.freeing import freed, opened

__all__ = ["freed", "opened"]
