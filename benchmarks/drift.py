"""What a drift check finds in a second year that is as it should be, and in the same year with one thing wrong.

Two summers of one synthetic ground, planned and checked as campaigns are: other days, other suns, other clouds, and scenes that lie in
the other UTM zone. Then the files of the second year are written with a wrong scale, a wrong offset, swapped bands or more haze.
"""

import datetime as dt
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from rtsx.campaign import Campaign
from rtsx.campaign.drift import DriftCheck, signed
from rtsx.config import load_campaign_config
from rtsx.synthetic.region import RegionSpec, write_region
from rtsx.synthetic.scene import make_sky, sun_over, through_atmosphere

_CAMPAIGN = """
name: drift
year: 2024
region: {region}
cube:
  preset: tss-v1
  grid: {{crs: EPSG:3413, resolution: 3, cell_size: 256}}
  period: {{years: "{{year}}", months: [7, 8]}}
  sources:
    planetscope:
      catalog: {{path: catalog.json, collections: planetscope}}
      asset: ortho_analytic_4b_sr
      layers: [blue, green, red, nir]
      quality: {{asset: ortho_udm2}}
model: demo
prediction: {{tile: 704, overlap: 192}}
output: campaign
"""


def hazy(pixels: NDArray[np.uint16], haze: float, number: int) -> NDArray[np.float64]:
    """Stored pixels (band, y, x) of an image under haze of that greatest path reflectance."""
    reflectance = pixels.astype(np.float32) * np.float32(1e-4)
    side, rng = max(pixels.shape[1:]), np.random.default_rng(number)
    sky = make_sky(side, sun=sun_over(67, date=dt.date(2025, 7, 20), hour=12), cloud_cover=0, haze=haze, rng=rng)
    through_atmosphere(reflectance, sky=sky)
    return reflectance * 1e4


FAULTS: Mapping[str, Callable[[NDArray[np.uint16], int], NDArray[np.float64]]] = {
    "as it should be": lambda pixels, number: pixels * 1.0,
    "ten times too large": lambda pixels, number: pixels * 10.0,
    "0.0001 applied twice": lambda pixels, number: pixels * 1e-4,
    "half as large": lambda pixels, number: pixels * 0.5,
    "offset 1000 not taken off": lambda pixels, number: pixels + 1000.0,
    "blue and red swapped": lambda pixels, number: pixels[[2, 1, 0, 3]] * 1.0,
    "usual haze, up to 0.06": lambda pixels, number: hazy(pixels, 0.06, number),
    "haze up to 0.2": lambda pixels, number: hazy(pixels, 0.2, number),
}


def run(*, size: int = 384, scenes: int = 9, faults: Collection[str] = tuple(FAULTS)) -> dict[str, DriftCheck]:
    """Print how far the layers of each second year are from the first.

    Parameters
    ----------
    size, scenes
        Side of a scene in px, and scenes a year.
    faults
        Those of `FAULTS` that are made.
    """
    with tempfile.TemporaryDirectory() as name:
        spec = RegionSpec(seed=11, scenes=scenes, years=(2024, 2025), size=size)
        files = write_region(spec, Path(name) / "region")
        config = files.catalog.parent / "campaign.yaml"
        reach = size * 3 * np.sqrt(scenes) * 0.35
        up, right = reach / 111_000, reach / 111_000 / np.cos(np.deg2rad(spec.latitude))
        region = [
            round(float(edge), 4)
            for edge in (spec.longitude - right, spec.latitude - up, spec.longitude + right, spec.latitude + up)
        ]
        config.write_text(_CAMPAIGN.format(region=region))

        def checked(year: int) -> DriftCheck:
            return Campaign.create(load_campaign_config(config, year=year).recipe()).check()

        first = checked(2024)
        print(f"{len(first.cells)} cells, {100 * first.invalid:.0f} % of their pixels invalid")
        print(f"{'second year':28}{'mean':>8}{'spread':>8}{'quantile':>10}{'invalid':>9}  trips for")
        originals = {path: path.read_bytes() for path in files.images if path.name.startswith("2025")}
        found = {}
        for fault in faults:
            for number, (path, content) in enumerate(originals.items()):
                path.write_bytes(content)
                with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
                    pixels = file.read()
                    changed = np.clip(np.round(FAULTS[fault](pixels, number)), 1, 65535)
                    file.write(np.where(pixels == 0, 0, changed).astype(pixels.dtype))
            found[fault] = one = checked(2025)
            values = [each for each in one.comparisons if each.against == "2024" and each.mean is not None]
            moved = [
                max((getattr(each, field) for each in values), key=abs) for field in ("mean", "spread", "quantile")
            ]
            print(
                f"{fault:28}{signed(moved[0]):>8}{signed(moved[1]):>8}{signed(moved[2]):>10}"
                f"{100 * (one.invalid - first.invalid):>+8.0f}%  {', '.join(each.layer for each in one.findings) or '-'}"
            )
            for hint in dict.fromkeys(each.hint for each in one.findings if each.hint):
                print(f"{'':28}{hint}")
    return found
