"""What to make: kinds of landscape, a scene, and scenes that differ as those of an archive do."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rtsx.errors import CubeError

Colour = tuple[float, float, float, float]
"""Reflectance in blue, green, red and nir."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """One kind of ground. Models that have seen one kind alone are worth little on another, as in the real Arctic."""

    tussock: Colour
    """The commonest cover."""
    shrub: Colour
    """Willow and dwarf birch, in hollows and along brooks."""
    sedge: Colour
    """Wet meadow."""
    heath: Colour
    """Dry cover of convex ground."""
    rock: Colour
    """Frost-shattered rock and dry till on hilltops."""
    gravel: Colour
    """River bars and beaches."""
    basin: Colour
    """The floor of a drained lake."""
    mud_wet: Colour
    """Saturated thawed sediment."""
    mud_dry: Colour
    """Drained sediment."""
    headwall: Colour
    """The ice-rich headwall of a slump: dark, wet, bare."""
    regrowth: Colour
    """Young plants on stabilised floors."""
    relief: float
    """Height of hills, as a part of the plateau's."""


LANDSCAPES: Mapping[str, Landscape] = {
    "plateau": Landscape(
        tussock=(0.036, 0.060, 0.063, 0.232),
        shrub=(0.026, 0.049, 0.038, 0.300),
        sedge=(0.030, 0.049, 0.045, 0.185),
        heath=(0.056, 0.080, 0.090, 0.212),
        rock=(0.094, 0.122, 0.148, 0.195),
        gravel=(0.108, 0.138, 0.164, 0.205),
        basin=(0.032, 0.062, 0.051, 0.315),
        mud_wet=(0.052, 0.076, 0.094, 0.128),
        mud_dry=(0.088, 0.118, 0.147, 0.200),
        headwall=(0.043, 0.056, 0.067, 0.088),
        regrowth=(0.034, 0.062, 0.052, 0.285),
        relief=1.0,
    ),
    # Sparse, dry and bright: slumps are the dark places, where on the plateau they are the bare ones.
    "polar-desert": Landscape(
        tussock=(0.092, 0.121, 0.148, 0.212),
        shrub=(0.060, 0.086, 0.092, 0.235),
        sedge=(0.048, 0.072, 0.074, 0.190),
        heath=(0.112, 0.146, 0.176, 0.228),
        rock=(0.148, 0.182, 0.212, 0.250),
        gravel=(0.136, 0.168, 0.196, 0.236),
        basin=(0.064, 0.094, 0.096, 0.240),
        mud_wet=(0.038, 0.054, 0.066, 0.086),
        mud_dry=(0.062, 0.084, 0.103, 0.136),
        headwall=(0.030, 0.039, 0.046, 0.060),
        regrowth=(0.074, 0.102, 0.116, 0.225),
        relief=0.6,
    ),
    # Lush and flat, on dark, organic sediment.
    "yedoma": Landscape(
        tussock=(0.024, 0.048, 0.040, 0.268),
        shrub=(0.019, 0.040, 0.029, 0.335),
        sedge=(0.021, 0.040, 0.032, 0.215),
        heath=(0.036, 0.060, 0.058, 0.240),
        rock=(0.060, 0.080, 0.092, 0.150),
        gravel=(0.074, 0.096, 0.112, 0.148),
        basin=(0.024, 0.052, 0.038, 0.350),
        mud_wet=(0.026, 0.036, 0.043, 0.066),
        mud_dry=(0.042, 0.056, 0.068, 0.102),
        headwall=(0.020, 0.026, 0.030, 0.044),
        regrowth=(0.026, 0.052, 0.040, 0.300),
        relief=0.45,
    ),
}
"""The kinds of ground by name; the first is that of the demo."""


def landscape_named(name: str) -> Landscape:
    """Look a kind of ground up.

    Raises
    ------
    CubeError
        There is none of this name.

    Examples
    --------
    >>> landscape_named("plateau").relief
    1.0
    """
    if name not in LANDSCAPES:
        raise CubeError(f"The landscape has to be one of {', '.join(LANDSCAPES)}; got {name!r}.")
    return LANDSCAPES[name]


DEMO_SEED = 7
"""Seed of the demo's scene; no training, no choice of a threshold has seen it."""

PIXEL_M = 3.0
"""Pixel of the ground pixel grid and of the scenes, m."""
MARGIN = 96
"""Ground beyond each side of a scene, px, so that auxiliary layers and outlines do not end with it."""
BLOCK = 8
"""The ground's side is a multiple of this, px: the drainage pixel grid is that much coarser."""

DEM_RESOLUTIONS_M = (2, 10, 32)
"""Pixels that ArcticDEM comes in, m."""


@dataclass(frozen=True, kw_only=True)
class LandscapeSpec:
    """A square of tundra on a pixel grid of 3 m in a projected CRS; everything on it follows from `seed`."""

    seed: int
    """Seed of terrain, water, cover and slumps, 0 or above."""
    crs: str
    """Projected CRS of the pixel grid, in metres."""
    left: float
    """Left edge of the pixel grid, m."""
    top: float
    """Upper edge of the pixel grid, m."""
    size: int
    """Side of the square, px of 3 m; a multiple of 8, at least 256."""
    slumps_per_km2: float = 1.0
    """Active slumps per km²; 1.0 covers about 2.5 % of the ground, where real ground has 0.1-0.5 %."""
    landscape: str = "plateau"
    """Kind of ground, one of `LANDSCAPES`."""

    def __post_init__(self) -> None:
        """Refuse a pixel grid that drainage cannot be computed on."""
        if self.size < 256 or self.size % BLOCK:
            raise CubeError(
                f"The side of the ground has to be a multiple of {BLOCK} px of at least 256; got {self.size}."
            )
        if self.seed < 0 or self.slumps_per_km2 < 0:
            raise CubeError(f"Seed and slump density must not be negative; got {self.seed} and {self.slumps_per_km2}.")
        landscape_named(self.landscape)

    @property
    def area_km2(self) -> float:
        """Area of the square, km²."""
        return (self.size * PIXEL_M / 1000) ** 2


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """One PlanetScope-like scene with its auxiliary layers and truth.

    Examples
    --------
    >>> spec = SceneSpec(seed=7, size=1024)
    >>> spec.image_id, spec.ground_spec.size
    ('20240721_200707_0007', 1216)
    """

    seed: int
    """Seed of clouds, noise and, without `ground`, of the ground, 0 or above."""
    size: int = 2048
    """Side of the raster, px of 3 m; at least 64."""
    crs: str = "EPSG:32608"
    """UTM zone of the scene."""
    left: float = 520_200.0
    """Left edge of the raster, m; the default lies on the Peel Plateau."""
    top: float = 7_482_600.0
    """Upper edge of the raster, m."""
    date: dt.date = dt.date(2024, 7, 21)
    """Day of the image; sets the sun and the snow that is left."""
    tilt_deg: float = 8.0
    """Angle between the orbit and the raster, degrees, 0-45: the corners outside of the strip are nodata."""
    cloud_cover: float = 0.04
    """Part of the raster under cloud, 0-0.9."""
    haze: float = 0.03
    """Path reflectance of the thickest haze beside clouds, 0-0.2."""
    slumps_per_km2: float = 1.0
    """Active slumps per km² of the ground that is made when `ground` is None."""
    landscape: str = "plateau"
    """Kind of that ground, one of `LANDSCAPES`."""
    dem_resolution_m: int = 10
    """Pixel of the ArcticDEM-like layer, m: 2, 10 or 32."""
    ground: LandscapeSpec | None = None
    """Ground that the scene looks at, for several scenes of one ground; None makes one around the scene."""
    region: str = "Synthetic"
    """Value of the truth's field `region`."""

    def __post_init__(self) -> None:
        """Refuse what no sensor could have seen."""
        if self.size < 64 or self.seed < 0:
            raise CubeError(
                f"A scene needs a side of at least 64 px and a seed of at least 0; got {self.size}, {self.seed}."
            )
        if not (0 <= self.tilt_deg <= 45 and 0 <= self.cloud_cover <= 0.9 and 0 <= self.haze <= 0.2):
            raise CubeError(
                "A scene needs tilt_deg 0-45, cloud_cover 0-0.9 and haze 0-0.2; "
                f"got {self.tilt_deg}, {self.cloud_cover} and {self.haze}."
            )
        landscape_named(self.landscape)
        if self.dem_resolution_m not in DEM_RESOLUTIONS_M:
            raise CubeError(f"ArcticDEM comes at 2, 10 or 32 m; got dem_resolution_m={self.dem_resolution_m}.")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top edge of the raster, m."""
        side = self.size * PIXEL_M
        return self.left, self.top - side, self.left + side, self.top

    @property
    def image_id(self) -> str:
        """Name in Planet's manner: date, time, satellite."""
        return f"{self.date:%Y%m%d}_20{self.seed % 60:02d}{(self.seed * 7 + 18) % 60:02d}_{self.seed % 65536:04x}"

    @property
    def site(self) -> str:
        """Value of the truth's field `site`: one per ground."""
        return f"{self.region}_{self.ground_spec.seed:04d}"

    @property
    def ground_spec(self) -> LandscapeSpec:
        """The ground of the scene: `ground`, or a square around it."""
        if self.ground is not None:
            return self.ground
        side = -(-(self.size + 2 * MARGIN) // BLOCK) * BLOCK
        return LandscapeSpec(
            seed=self.seed,
            crs=self.crs,
            left=self.left - MARGIN * PIXEL_M,
            top=self.top + MARGIN * PIXEL_M,
            size=max(side, 256),
            slumps_per_km2=self.slumps_per_km2,
            landscape=self.landscape,
        )

    def on_ground(self, ground: LandscapeSpec) -> "SceneSpec":
        """Return the same scene over another ground."""
        return replace(self, ground=ground)


_COLUMNS, _ROWS = 25, 40
"""Places for scenes that lie apart, from the usual one to the east and to the south; all within one UTM zone."""


def varied_spec(
    seed: int, *, size: int = 1024, slumps_per_km2: float = 1.0, region: str = SceneSpec.region
) -> SceneSpec:
    """Return the scene of its own ground whose day (July and August of 2018-2024), clouds (up to 8 %) and haze follow from its seed.

    Parameters
    ----------
    seed
        Seed of everything, 0 or above.
    size
        Side of the raster, px of 3 m.
    slumps_per_km2
        Active slumps per km² of ground.
    region
        Value of the truth's field `region`.

    Examples
    --------
    >>> [str(varied_spec(seed).date) for seed in (1000, 1001)]
    ['2024-07-30', '2018-07-30']
    """
    rng = np.random.default_rng([seed, 99])
    return SceneSpec(
        seed=seed,
        size=size,
        date=dt.date(2018 + seed % 7, 7, 1) + dt.timedelta(days=int(rng.integers(0, 50))),
        cloud_cover=float(rng.uniform(0, 0.08)),
        haze=float(rng.uniform(0, 0.06)),
        slumps_per_km2=slumps_per_km2,
        region=region,
    )


def placed_apart(spec: SceneSpec) -> SceneSpec:
    """Return the same scene at one of a thousand places that do not overlap, by its seed, instead of where all scenes lie.

    Scenes on the same ground are not divided between training and test, and by default all lie on the same square of the map.

    Examples
    --------
    >>> placed_apart(SceneSpec(seed=26, size=1024)).left - SceneSpec.left
    3648.0
    """
    step = (spec.size + 2 * MARGIN) * PIXEL_M
    row, column = divmod(spec.seed % (_COLUMNS * _ROWS), _COLUMNS)
    return replace(spec, left=spec.left + column * step, top=spec.top - row * step)
