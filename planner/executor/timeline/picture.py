"""The timeline as a picture: an SVG file that any browser and README shows."""

from collections.abc import Sequence
from html import escape

from planner.executor.timeline.record import COMPUTE, NETWORK, Interval, overlap

WIDTH, LEFT, TOP = 960, 120, 62
LANE, GAP, FOOT = 22, 14, 34
COLOURS = (("#2f6fb2", "#9cc3e8"), ("#c2571a", "#f3b98c"))
"""By batch parity: computing, travelling."""


def svg(
    intervals: Sequence[Interval],
    *,
    title: str,
    window: tuple[float, float] | None = None,
    most_ranks: int = 4,
) -> str:
    """Return a picture: per rank one lane of computing and one of travelling.

    Parameters
    ----------
    window
        First and last second to draw; None: all.
    most_ranks
        Ranks to draw, the first ones.
    """
    start, end = window or _span(intervals)
    scale = (WIDTH - LEFT - 20) / max(end - start, 1e-9)
    ranks = sorted({each.rank for each in intervals})[:most_ranks]
    height = TOP + len(ranks) * (2 * LANE + GAP) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#222">{escape(title)}</text>',
        *_legend(),
    ]
    for place, rank in enumerate(ranks):
        own = [each for each in intervals if each.rank == rank]
        top = TOP + place * (2 * LANE + GAP)
        parts += _rank(own, rank, top, (start, end), scale)
    parts += _axis((start, end), scale, height - FOOT)
    return "\n".join([*parts, "</svg>", ""])


def busiest(intervals: Sequence[Interval], seconds: float) -> tuple[float, float]:
    """Return the first and last second of a stretch around most of the travel."""
    start, end = _span(intervals)
    if end - start <= seconds:
        return start, end
    starts = sorted(each.start_s for each in intervals if each.lane == NETWORK)
    middle = starts[len(starts) // 2] if starts else start
    first = min(max(start, middle - seconds / 2), end - seconds)
    return first, first + seconds


def _span(intervals: Sequence[Interval]) -> tuple[float, float]:
    if not intervals:
        return 0.0, 1.0
    return min(i.start_s for i in intervals), max(i.end_s for i in intervals)


def _legend() -> list[str]:
    parts = []
    words = ("even batches compute", "travel", "odd batches compute", "travel")
    x = LEFT
    for at, word in enumerate(words):
        colour = COLOURS[at // 2][at % 2]
        parts.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="44" fill="#444">{word}</text>')
        x += 40 + 7 * len(word)
    return parts


def _rank(
    own: Sequence[Interval],
    rank: int,
    top: int,
    window: tuple[float, float],
    scale: float,
) -> list[str]:
    share = overlap(own).hidden
    parts = []
    for row, lane in enumerate((COMPUTE, NETWORK)):
        y = top + row * LANE
        name = f"rank {rank} {lane}"
        parts.append(f'<text x="10" y="{y + 14}" fill="#222">{name}</text>')
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y + LANE - 2}" '
            f'y2="{y + LANE - 2}" stroke="#eee"/>'
        )
    for each in own:
        first, last = max(each.start_s, window[0]), min(each.end_s, window[1])
        if last <= first:
            continue
        travels = each.lane == NETWORK
        colour = COLOURS[each.batch % 2][int(travels)]
        # Two batches may have rows on their way at once: half the lane each.
        height = (LANE - 4) // 2 if travels else LANE - 4
        y = top + (LANE + (each.batch % 2) * height if travels else 0)
        parts.append(
            f'<rect x="{LEFT + (first - window[0]) * scale:.2f}" y="{y}" '
            f'width="{max(0.3, (last - first) * scale):.2f}" height="{height}" '
            f'fill="{colour}"><title>{escape(each.label)}, batch {each.batch}, '
            f"{1e3 * (each.end_s - each.start_s):.3f} ms</title></rect>"
        )
    parts.append(
        f'<text x="{WIDTH - 20}" y="{top - 3}" text-anchor="end" fill="#666" '
        f'font-size="11">{100 * share:.0f} % of the smaller lane is hidden</text>'
    )
    return parts


def _axis(window: tuple[float, float], scale: float, y: int) -> list[str]:
    start, end = window
    parts = [f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y}" y2="{y}" stroke="#888"/>']
    for tick in range(6):
        at = start + (end - start) * tick / 5
        x = LEFT + (at - start) * scale
        anchor = "end" if tick == 5 else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{y + 16}" text-anchor="{anchor}" fill="#444">'
            f"{1e3 * (at - start):.1f} ms</text>"
        )
    return parts
