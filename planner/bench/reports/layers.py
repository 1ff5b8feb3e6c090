"""A CSV row per case, layer, leg and link class: where the load sits."""

import csv
import io
from collections.abc import Sequence

from planner.bench.result import Layer, Result


def layers_csv(results: Sequence[Result]) -> str:
    """Return the busiest links of all plans as CSV with a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *Layer.model_fields])
    for result in results:
        for layer in result.reached.layers if result.reached else ():
            writer.writerow([result.name, *layer.model_dump().values()])
    return text.getvalue()
