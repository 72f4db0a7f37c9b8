"""Where the names of points go, so that they hide neither points nor each other.

Comes in: rows with ``x``, ``y`` and their intervals. Goes out: the same rows with ``align``,
``dx`` and ``dy`` in pixels. The browser's width is unknown here, so a usual size is assumed.
"""

import math

# Width and height of a panel's plot, in pixels, on a phone and in a half column of the page.
PLOT = (330, 290)
CHARACTER = 6.8  # mean width of a letter at 12 px in the usual system fonts, measured
LINE = 15
_PLACES = (
    ("left", 11, 0), ("right", -11, 0), ("center", 0, -16), ("center", 0, 16),
    ("left", 9, -13), ("left", 9, 13), ("right", -9, -13), ("right", -9, 13),
    ("left", 9, -26), ("left", 9, 26), ("right", -9, -26), ("right", -9, 26),
)  # fmt: skip


def place_labels(rows: list[dict], line: list[dict]) -> None:
    """Add ``align``, ``dx`` and ``dy`` to each row, greedily, the first row first.

    Args:
        rows: Points with ``label`` (empty: none), ``x``, ``y``, ``x_low``, ``x_high``, ``y_low``
            and ``y_high``.
        line: Corners of a line that names should not cross.
    """
    to_pixel = _pixels(rows)
    points = [to_pixel(row["x"], row["y"]) for row in rows] + [to_pixel(0, 0)]
    obstacles = [(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    thin = []
    for row in rows:
        (left, bottom), (right, top) = (
            to_pixel(row["x_low"], row["y_low"]),
            to_pixel(row["x_high"], row["y_high"]),
        )
        x, y = to_pixel(row["x"], row["y"])
        thin += [(left, y - 1, right, y + 1), (x - 1, top, x + 1, bottom)]
    corners = [to_pixel(point["x"], point["y"]) for point in line]
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        steps = [i / 20 for i in range(21)]
        thin += [
            (x0 + (x1 - x0) * t - 2, y0 + (y1 - y0) * t - 2,
             x0 + (x1 - x0) * t + 2, y0 + (y1 - y0) * t + 2)
            for t in steps
        ]  # fmt: skip
    for row, (x, y) in zip(rows, points, strict=False):
        width = CHARACTER * len(row["label"])

        def cost(place, x=x, y=y, width=width):
            box = _box(place, x, y, width)
            outside = max(0, -box[0]) + max(0, box[2] - PLOT[0]) + max(0, -box[1] - 8)
            return (
                20 * outside * LINE
                + 10 * sum(_overlap(box, other) for other in obstacles)
                + 0.5 * sum(_overlap(box, other) for other in thin)
                + math.hypot(place[1], place[2])
                + _PLACES.index(place)
            )

        best = min(_PLACES, key=cost)
        row["align"], row["dx"], row["dy"] = best
        obstacles.append(_box(best, x, y, width))


def _pixels(rows: list[dict]):
    xs = [0, *(row[key] for row in rows for key in ("x_low", "x_high"))]
    ys = [0, *(row[key] for row in rows for key in ("y_low", "y_high"))]
    x_room, y_room = (max(xs) - min(xs) or 1) * 0.08, (max(ys) - min(ys) or 1) * 0.08

    def to_pixel(x: float, y: float) -> tuple[float, float]:
        across = (x - min(xs) + x_room) / (max(xs) - min(xs) + 2 * x_room or 1)
        up = (y - min(ys) + y_room) / (max(ys) - min(ys) + 2 * y_room or 1)
        return across * PLOT[0], (1 - up) * PLOT[1]

    return to_pixel


def _box(place: tuple, x: float, y: float, width: float) -> tuple[float, float, float, float]:
    align, dx, dy = place
    left = x + dx - {"left": 0, "center": width / 2, "right": width}[align]
    return left, y + dy - LINE / 2, left + width, y + dy + LINE / 2


def _overlap(a: tuple, b: tuple) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
