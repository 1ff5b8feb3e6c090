"""More slots on a GPU than there are experts: two copies would share it."""

from planner.explain.causes.base import CAUSES, OPTION, Change, Finding, Setup


@CAUSES.register("copies")
def copies(setup: Setup) -> Finding | None:
    """A GPU holds an expert at most once, so at most E slots can be filled."""
    experts, slots = setup.model.experts, setup.slots_per_gpu
    if slots <= experts:
        return None
    most = experts * (setup.layout.ep - 1)
    now = setup.slot_count - experts
    change = Change(
        what=f"--redundant {most} instead of {now}",
        cost=(OPTION, 1 - experts / slots),
        options={"redundant": str(most)},
    )
    return Finding(
        says=f"too many copies: {slots} slots per GPU for {experts} experts would put "
        "two copies of one on a GPU",
        numbers={"experts": experts, "slots_per_gpu": slots},
        ladders=() if setup.slots_given else ((change,),),
    )
