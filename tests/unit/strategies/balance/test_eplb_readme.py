"""The example of EPLB's README: eight optima, proven."""

import pytest

from benchmarks.eplb_readme import LOADS, solved, value

OPTIMA = {
    ("nest", "even"): (151.0, 179.5),
    ("nest", "weighted"): (147.0, 172.5),
    ("free", "even"): (136.0, 172.0),
    ("free", "weighted"): (129.25, 146.0),
}
CASES = [
    (layer, *case, optima[layer]) for case, optima in OPTIMA.items() for layer in (0, 1)
]


@pytest.mark.parametrize(("layer", "groups", "selection", "optimum"), CASES)
def test_the_least_load_is_reached_and_proven(
    layer: int, groups: str, selection: str, optimum: float
) -> None:
    """Law: the published optimum, whose certificate the verifier's checkers accept."""
    manifest = solved(LOADS[layer], groups, selection)
    assert value(manifest) == optimum
    assert manifest.status == "proven_optimal"
