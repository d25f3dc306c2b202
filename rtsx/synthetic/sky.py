"""Between ground and satellite: sun, clouds with their shadows, haze, and the usable data mask."""

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtsx.synthetic.noise import fractal_noise, smoothstep, upsample

UDM2_BANDS = ("clear", "snow", "shadow", "light_haze", "heavy_haze", "cloud", "confidence", "unusable")
"""Bands of the usable data mask, in order."""
_CELL = 4
"""Scene px per cell of the pixel grid on which clouds are made."""
CLOUD_BASE_M = 700.0
"""Height of the clouds, m."""
LIGHT_HAZE, HEAVY_HAZE, CLOUD = 0.05, 0.15, 0.35
"""Least opacity that the usable data mask calls light haze, heavy haze and cloud."""
SHADOW = 0.35
"""Least darkening that it calls shadow, as part of the cloud's opacity."""


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Where the light comes from."""

    azimuth_deg: float
    """Direction clockwise from the north of a grid (of the truth: `Scene.sun`), degrees."""
    elevation_deg: float
    """Height above the horizon, degrees."""

    def turned(self, angle_deg: float) -> "Sun":
        """Return the same sun against a north that lies `angle_deg` further to the left (anticlockwise).

        Examples
        --------
        >>> Sun(azimuth_deg=350, elevation_deg=30).turned(15)
        Sun(azimuth_deg=5, elevation_deg=30)
        """
        return replace(self, azimuth_deg=(self.azimuth_deg + angle_deg) % 360) if angle_deg else self


@dataclass(frozen=True, kw_only=True)
class Sky:
    """What lies above each pixel of a scene."""

    cloud: NDArray[np.float32]
    """Opacity of clouds and their veils (y, x), 0-1."""
    shadow: NDArray[np.float32]
    """Opacity of the cloud between sun and ground (y, x), 0-1."""
    haze: NDArray[np.float32]
    """Opacity of haze beside clouds (y, x), 0-1."""


def sun_over(latitude_deg: float, *, date: dt.date, hour: float) -> Sun:
    """Sun at local solar `hour`, from the declination of the day; good to a degree.

    Examples
    --------
    >>> sun = sun_over(67.4, date=dt.date(2024, 7, 21), hour=12)
    >>> round(sun.azimuth_deg), round(sun.elevation_deg)
    (180, 43)
    """
    day = date.timetuple().tm_yday
    declination = np.radians(-23.44 * np.cos(2 * np.pi * (day + 10) / 365.25))
    latitude, angle = np.radians(latitude_deg), np.radians(15 * (hour - 12))
    up = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(latitude) * np.sin(declination) - np.sin(latitude) * np.cos(declination) * np.cos(angle)
    return Sun(
        azimuth_deg=float(np.degrees(np.arctan2(east, north)) % 360), elevation_deg=float(np.degrees(np.arcsin(up)))
    )


def make_sky(size: int, *, sun: Sun, cloud_cover: float, haze: float, rng: np.random.Generator) -> Sky:
    """Clouds over `cloud_cover` of a square of `size` px of 3 m, their shadows (of clouds outside, too), and haze up to `haze`."""
    reach_m = CLOUD_BASE_M / np.tan(np.radians(max(sun.elevation_deg, 15)))
    towards = np.radians(sun.azimuth_deg)
    # A shadow lies away from the sun: the cloud that darkens a pixel stands towards the sun from it.
    shift = np.round(np.array([-np.cos(towards), np.sin(towards)]) * reach_m / (3 * _CELL)).astype(int)
    margin = int(np.abs(shift).max()) + 2
    inner = -(-size // _CELL)
    side = inner + 2 * margin
    field = fractal_noise((side, side), coarsest=64, finest=2, persistence=0.62, rng=rng)
    here = (slice(margin, margin + inner),) * 2
    opacity = np.zeros_like(field)
    if cloud_cover > 0:
        level = float(np.quantile(field[here], 1 - cloud_cover))
        opacity = smoothstep(field, level - 0.22, level + 0.45)
    veil = smoothstep(fractal_noise((side, side), coarsest=128, finest=16, persistence=0.5, rng=rng), 0.2, 2.2)
    there = tuple(slice(margin + int(s), margin + int(s) + inner) for s in shift)
    shape = (size, size)
    return Sky(
        cloud=np.clip(upsample(opacity[here], factor=_CELL, shape=shape), 0, 1),
        shadow=np.clip(upsample(opacity[there], factor=_CELL, shape=shape), 0, 1),
        haze=np.float32(haze) * upsample(veil[here], factor=_CELL, shape=shape),
    )


def usable_data_mask(sky: Sky, *, snow: NDArray[np.bool_], footprint: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Make the 8 bands of `UDM2_BANDS` (band, y, x): one class of the first six per pixel seen.

    Confidence is 0-100, `unusable` 1 outside of the footprint, where all else is 0.

    Examples
    --------
    >>> nothing = np.zeros((2, 2), np.float32)
    >>> sky = Sky(cloud=np.eye(2, dtype=np.float32), shadow=nothing, haze=nothing)
    >>> mask = usable_data_mask(sky, snow=nothing > 0, footprint=nothing == 0)
    >>> mask[UDM2_BANDS.index("clear")].tolist()
    [[0, 1], [1, 0]]
    """
    cloud = sky.cloud >= CLOUD
    heavy = ~cloud & (sky.cloud >= HEAVY_HAZE)
    shadow = ~cloud & ~heavy & (sky.shadow >= SHADOW)
    seen_snow = snow & ~cloud & ~heavy & ~shadow
    light = ~cloud & ~heavy & ~shadow & ~seen_snow & (np.maximum(sky.cloud, sky.haze) >= LIGHT_HAZE)
    clear = ~(cloud | heavy | shadow | seen_snow | light)
    doubt = np.minimum(np.abs(sky.cloud - CLOUD), np.abs(sky.shadow - SHADOW))
    confidence = np.round(60 + 40 * np.clip(doubt / 0.2, 0, 1))
    bands = np.stack([clear, seen_snow, shadow, light, heavy, cloud, confidence, np.zeros_like(cloud)]).astype(np.uint8)
    bands *= footprint
    bands[-1] = ~footprint
    return bands


def through_atmosphere(reflectance: NDArray[np.float32], *, sky: Sky) -> None:
    """Darken `reflectance` (band, y, x) under cloud shadow and veil it with haze and cloud, in place."""
    wide = ndimage.gaussian_filter(sky.cloud, 3)
    for band, scatter, gleam, sunlit in zip(
        reflectance, (1.0, 0.72, 0.52, 0.3), (0.78, 0.77, 0.76, 0.80), (0.52, 0.6, 0.64, 0.72), strict=True
    ):
        band *= 1 - np.float32(sunlit) * sky.shadow
        band += np.float32(scatter) * sky.haze - band * sky.haze
        band += (np.float32(gleam) * (0.75 + 0.25 * wide) - band) * sky.cloud
