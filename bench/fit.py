"""A straight line through points that span several orders of magnitude. Pure."""

import msgspec

from bench.samples import Point


class Line(msgspec.Struct, frozen=True):
    """y = base + slope · x; `deviation`: how far the farthest point is off, as a share of the line."""

    base: float
    slope: float
    deviation: float

    def at(self, x: float) -> float:
        return self.base + self.slope * x


def fit(points: list[Point]) -> Line:
    """The line with the least squared relative error, so that small points count as much as large ones.

    >>> fit([Point(1, 3), Point(10, 12), Point(1000, 1002)])
    Line(base=2.0, slope=1.0, deviation=0.0)
    """
    weights = [1 / point.y**2 for point in points]
    total = sum(weights)
    x_mean = sum(w * p.x for w, p in zip(weights, points, strict=True)) / total
    y_mean = sum(w * p.y for w, p in zip(weights, points, strict=True)) / total
    across = sum(w * (p.x - x_mean) * (p.y - y_mean) for w, p in zip(weights, points, strict=True))
    spread = sum(w * (p.x - x_mean) ** 2 for w, p in zip(weights, points, strict=True))
    slope = across / spread
    line = Line(y_mean - slope * x_mean, slope, 0.0)
    off = max(abs(point.y - line.at(point.x)) / line.at(point.x) for point in points)
    return Line(round(line.base, 6), round(slope, 9), round(off, 6))
