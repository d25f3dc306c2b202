"""What to make: the ground under a scene, and one scene of it."""

import datetime as dt
from dataclasses import dataclass, replace

from rtsx.errors import CubeError
from rtsx.synthetic.landscape import landscape_named

__all__ = ["DEMO_SEED", "GroundSpec", "SceneSpec"]

DEMO_SEED = 7
"""Seed of the demo's scene; no training, no choice of a threshold has seen it."""

PIXEL_M = 3.0
"""Pixel of the ground lattice and of the scenes, m."""
MARGIN = 96
"""Ground beyond each side of a scene, px, so that auxiliary layers and outlines do not end with it."""
BLOCK = 8
"""The ground's side is a multiple of this, px: the drainage lattice is that much coarser."""

DEM_RESOLUTIONS_M = (2, 10, 32)
"""Pixels that ArcticDEM comes in, m."""


@dataclass(frozen=True, kw_only=True)
class GroundSpec:
    """A square of tundra on a lattice of 3 m in a projected CRS; everything on it follows from `seed`."""

    seed: int
    """Seed of terrain, water, cover and slumps, 0 or above."""
    crs: str
    """Projected CRS of the lattice, in metres."""
    left: float
    """Left edge of the lattice, m."""
    top: float
    """Upper edge of the lattice, m."""
    size: int
    """Side of the square, px of 3 m; a multiple of 8, at least 256."""
    slumps_per_km2: float = 1.0
    """Active slumps per km²; 1.0 covers about 2.5 % of the ground, where real ground has 0.1-0.5 %."""
    landscape: str = "plateau"
    """Kind of ground, one of `LANDSCAPES`."""

    def __post_init__(self) -> None:
        """Refuse a lattice that drainage cannot be computed on."""
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
    ground: GroundSpec | None = None
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
    def image_id(self) -> str:
        """Name in Planet's manner: date, time, satellite."""
        return f"{self.date:%Y%m%d}_20{self.seed % 60:02d}{(self.seed * 7 + 18) % 60:02d}_{self.seed % 65536:04x}"

    @property
    def site(self) -> str:
        """Value of the truth's field `site`: one per ground."""
        return f"{self.region}_{self.ground_spec.seed:04d}"

    @property
    def ground_spec(self) -> GroundSpec:
        """The ground of the scene: `ground`, or a square around it."""
        if self.ground is not None:
            return self.ground
        side = -(-(self.size + 2 * MARGIN) // BLOCK) * BLOCK
        return GroundSpec(
            seed=self.seed,
            crs=self.crs,
            left=self.left - MARGIN * PIXEL_M,
            top=self.top + MARGIN * PIXEL_M,
            size=max(side, 256),
            slumps_per_km2=self.slumps_per_km2,
            landscape=self.landscape,
        )

    def on_ground(self, ground: GroundSpec) -> "SceneSpec":
        """Return the same scene over another ground."""
        return replace(self, ground=ground)
