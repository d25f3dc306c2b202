import pytest

from rtsx.labels.schema import match_columns


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["image_id", "image_date", "region", "site", "id_ds", "label", "id"],
            {"class_name": "label", "region": "region", "site": "site", "image_date": "image_date", "image_ids": "image_id", "source_id": "id"},
        ),
        (["Id", "Notes", "Slump_ID"], {"source_id": "Slump_ID"}),
        (["Id", "Notes", "Updated", "Created_by", "Confirmed"], {"creator": "Created_by", "source_id": "Id"}),
        (["id", "label", "Area (m2)"], {"class_name": "label", "source_id": "id"}),
        (
            ["CentroidLa", "RegionName", "CreatorLab", "BaseMapDat", "BaseMapSou", "BaseMapRes", "BaseMapID", "TrainClass", "UID"],
            {
                "class_name": "TrainClass", "region": "RegionName", "image_date": "BaseMapDat", "image_ids": "BaseMapID",
                "image_source": "BaseMapSou", "image_resolution_m": "BaseMapRes", "creator": "CreatorLab", "source_id": "UID",
            },
        ),
    ],
)  # fmt: skip
def test_names_of_the_field(names, expected):
    assert match_columns(names, {}) == expected


def test_what_the_caller_has_given_away_is_not_taken_again():
    assert match_columns(["label", "id"], {"source_id": "label"}) == {"source_id": "label"}
