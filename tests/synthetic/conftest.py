"""One small region, written once, and a validator of STAC documents that needs no network."""

from functools import partial

import jsonschema
import pytest
import referencing
from pystac.validation.local_validator import get_local_schema_cache

from rtsx.synthetic import RegionSpec, make_ground, write_region

REGION = RegionSpec(seed=15, size=256, scenes=4, cloud_cover=0.04)


@pytest.fixture(scope="session")
def region_ground(once):
    return once("ground", lambda folder: make_ground(REGION.ground_spec))


@pytest.fixture(scope="session")
def region(once):
    return once("region", partial(write_region, REGION))


@pytest.fixture(scope="session")
def stac_errors():
    """Messages about a STAC document; every schema from the disk: an unknown reference fails instead of downloading."""
    resources = [
        (uri, referencing.Resource.from_contents(document)) for uri, document in get_local_schema_cache().items()
    ]
    registry = referencing.Registry().with_resources(resources)

    def errors(document):
        kind = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}[document["type"]]
        schema = f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"
        validator = jsonschema.Draft7Validator({"$ref": schema}, registry=registry)
        return [error.message for error in validator.iter_errors(document)]

    return errors
