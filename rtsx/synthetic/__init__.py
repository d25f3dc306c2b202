"""Synthetic tundra with thaw slumps, in the formats of real data: for the demo, tests and benchmarks."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.synthetic.archive import (
        TEST_SEEDS,
        TRAINING_SEEDS,
        VALIDATION_SEEDS,
        DemoFiles,
        WrittenScene,
        demo_bundle_path,
        demo_spec,
        remove_demo_scenes,
        write_demo_scene,
        write_scenes,
    )
    from rtsx.synthetic.ground import Ground, make_ground
    from rtsx.synthetic.landsat import LandsatStack, write_landsat
    from rtsx.synthetic.region import DemTile, RegionFiles, RegionSpec, region_items, write_region
    from rtsx.synthetic.scene import Scene, SceneFiles, make_scene, write_scene
    from rtsx.synthetic.spec import (
        DEMO_SEED,
        LANDSCAPES,
        Landscape,
        LandscapeSpec,
        SceneSpec,
        placed_apart,
        varied_spec,
    )

__getattr__ = lazy(__name__)
