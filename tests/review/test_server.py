import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import requests
import shapely
import xarray as xr
from PIL import Image

import rtsx
from rtsx.errors import LabelError, ReviewError
from rtsx.review import Review, create_review, merge_review, open_review, serve_review
from rtsx.review.pictures import ReviewPictures
from rtsx.review.server import ReviewService
from rtsx.viewer import Style
from tests.review.reviewers import image, outlines_of


@dataclass
class Page:
    """What the page does, without a browser."""

    address: str
    token: str

    def get(self, path: str) -> requests.Response:
        return requests.get(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def post(self, path: str, body: Any = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.post(self.address + path, headers=headers, data=json.dumps(body or {}), timeout=30)

    def verdicts(self, claimed: dict[str, Any], truth: Any) -> list[dict[str, Any]]:
        """What is sent of each batch by a reviewer who is always right."""
        sent = []
        for batch in claimed["batches"]:
            items = [item for item in claimed["items"] if item["batch"] == batch["batch"]]
            answers = [
                {"outline": item["outline"], "verdict": "target" if truth[item["outline"]] else "other", "seconds": 2}
                for item in items
            ]
            sent.append({**batch, "answers": answers, "added": []})
        return sent


def make(folder: Path, **how: Any) -> Review:
    table = outlines_of(12)
    table.loc[0, "footprint_id"] = "../../<img src=x onerror=alert(1)>"
    place = str(folder / "review")
    create_review(
        table,
        place,
        cubes={"2024": "now", "2019": "then"},
        opener=lambda _: image(),
        **{"batch_size": 6, "repeats": 0.2, **how},
    )
    return open_review(place)


@contextmanager
def served(review: Review, **how: Any) -> Iterator[Page]:
    with serve_review(review, opener=lambda _: image(), **how) as address:
        yield Page(address, review.admit("ada"))


def test_two_reviewers_work_through_a_review_and_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    review = make(tmp_path)
    truth = review.outlines["is_slump"]
    with served(review) as ada:
        bob = replace(ada, token=review.admit("bob"))
        claimed = {page.token: page.post("api/claim").json() for page in (ada, bob)}
        assert not {one["batch"] for one in claimed[ada.token]["batches"]} & {
            one["batch"] for one in claimed[bob.token]["batches"]
        }
        first = ada.verdicts(claimed[ada.token], truth)
        assert ada.post("api/verdicts", first[0]).json() == {"new": True}
    # The server ends, and another one begins: the page goes on with what it has, and with its token.
    with served(review) as fresh:
        ada, bob = replace(ada, address=fresh.address), replace(bob, address=fresh.address)
        assert ada.post("api/verdicts", first[0]).json() == {"new": False}
        for page in (bob, ada, bob, ada):
            for sent in page.verdicts(page.post("api/claim").json(), truth):
                assert page.post("api/verdicts", sent).status_code == 200
        assert ada.post("api/claim").json()["items"] == []
    merged = merge_review(review)
    assert merged.status.is_complete
    assert ((merged.outlines["verdict"] == "target") == merged.outlines["is_slump"]).all()
    assert merged.status.kappa.pairs == 3
    assert int(merged.outlines["n_reviews"].sum()) == 15


def test_nothing_is_told_without_a_token(tmp_path: Path) -> None:
    review = make(tmp_path)
    with served(review) as page:
        for token in ("", "wrong"):
            nobody = replace(page, token=token)
            for path in ("", "api/review", "api/picture/0/close/0", "nothing"):
                reply = nobody.get(path)
                assert reply.status_code == 401
                assert "rtsx review serve" in reply.json()["error"]
            assert nobody.post("api/claim").status_code == 401
        assert not list(review.objects.list("claims"))
        assert requests.get(f"{page.address}?token={page.token}", timeout=30).status_code == 200
        review.revoke("ada")
    with served(review) as again:
        assert replace(page, address=again.address).get("api/review").status_code == 401


def test_no_path_leads_to_a_file_and_names_stay_text(tmp_path: Path) -> None:
    review = make(tmp_path, class_name="<script>alert(1)</script>")
    with served(review) as page:
        for path in (
            "../review.json",
            "%2e%2e/review.json",
            "review.json",
            "api/picture/../../x/close/0",
            "static/" + quote("/etc/passwd", ""),
        ):
            assert page.get(path).status_code == 404
        html = requests.get(f"{page.address}?token={page.token}", timeout=30)
        assert "<script>alert" not in html.text
        assert "script-src 'nonce-" in html.headers["Content-Security-Policy"]
        assert page.get("api/picture/99999/close/0").status_code == 409
        assert page.post("api/verdicts", {"round": 1}).status_code == 409
        alien = {"round": 1, "batch": 0, "answers": [{"outline": "nowhere", "verdict": "other"}]}
        assert "'nowhere'" in page.post("api/verdicts", alien).json()["error"]
        assert (
            "verdict"
            in page.post("api/verdicts", {**alien, "answers": [{"outline": "a", "verdict": "maybe"}]}).json()["error"]
        )


def test_a_picture_shows_what_the_data_say_around_the_outline(tmp_path: Path) -> None:
    review = make(tmp_path)
    with served(review) as page:
        item = page.post("api/claim").json()["items"][0]
        assert "probability" not in item
        for view, side in (("close", 250), ("wide", 1500)):
            left, bottom, right, top = item[view]
            assert right - left == pytest.approx(side, rel=2e-3)
            assert top - bottom == pytest.approx(side, rel=2e-3)
            reply = page.get(f"api/picture/{item['row']}/{view}/0?style=red")
            box = json.loads(reply.headers["Rtsx-Box"])
            assert box[0] <= left or box[0] == 500_000
            pixels = np.asarray(Image.open(__import__("io").BytesIO(reply.content)))
            seen = pixels[pixels.shape[0] // 2, :, 0].astype(int)
            assert (np.diff(seen) >= 0).all()  # red rises to the east
            assert seen[-1] > seen[0]
        # An image that lacks what another has is drawn as it can be.
        assert page.get(f"api/picture/{item['row']}/close/1?style=thermal").status_code == 200


def test_drawn_outlines_come_back_in_the_crs_of_the_table(tmp_path: Path) -> None:
    place = str(tmp_path / "review")
    table = outlines_of(2).to_crs("EPSG:3413")
    create_review(table, place, cubes={"2024": "now"}, opener=lambda _: image(), repeats=0.0)
    review = open_review(place)
    ring = [[501000, 7699000], [501100, 7699000], [501100, 7699100], [501000, 7699100]]
    with served(review) as page:
        claimed = page.post("api/claim").json()
        (sent,) = page.verdicts(claimed, review.outlines["is_slump"])
        sent["answers"][0] |= {"verdict": "target", "corrected": ring}
        sent["added"] = [{"ring": ring, "comment": "missed"}]
        bad = {**sent, "added": [{"ring": ring[:2]}]}
        assert "three corners" in page.post("api/verdicts", bad).json()["error"]
        assert page.post("api/verdicts", sent).json() == {"new": True}
    merged = merge_review(review)
    assert merged.added.crs == "EPSG:3413"
    assert merged.added["area_m2"].iloc[0] == pytest.approx(10_000, rel=0.01)
    assert merged.outlines["is_corrected"].sum() == 1


def test_what_cannot_be_served_is_refused_with_its_cure(tmp_path: Path) -> None:
    review = make(tmp_path)
    with pytest.raises(ReviewError, match="--behind-proxy"), served(review, host="0.0.0.0"):
        pass
    with pytest.raises(ReviewError, match="no certificate"), served(review, certificate=("a.pem", "b.pem")):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ReviewError, match="is in use"), served(review, port=taken.getsockname()[1]):
            pass
    with served(review, host="0.0.0.0", behind_proxy=True) as page:
        assert f"//{socket.gethostname()}:" in page.address  # which others can open
        there = replace(page, address=page.address.replace(socket.gethostname(), "127.0.0.1"))
        assert there.get("api/review").status_code == 200


def test_a_dense_batch_fits_into_a_browser(tmp_path: Path) -> None:
    table = outlines_of(200)
    wavy = shapely.buffer(table.centroid, 60, quad_segs=30)  # 120 corners
    place = str(tmp_path / "review")
    review = create_review(
        table.set_geometry(wavy), place, cubes={"2024": "now"}, opener=lambda _: image(), repeats=0.0
    )
    pictures = ReviewPictures.open(review, opener=lambda _: image())
    claimed = ReviewService(review=review, pictures=pictures).claim("ada")
    assert len(claimed["items"]) == 200
    assert len(json.dumps(claimed)) < 3e6
    for item in claimed["items"][:20]:
        shown, outline = shapely.Polygon(item["rings"][0]), pictures.places[item["row"]]
        assert shapely.hausdorff_distance(shown, outline) < 10  # px
        assert len(pictures.near(item["row"])) == len(item["near"]) == 20
    pictures.close()


def of_years(*days: str) -> xr.Dataset:
    """A map that was written in this order: each year is as dark as its place in it."""
    flat = [xr.full_like(image()[["red"]], 100 + 1000 * place) for place in range(len(days))]
    return xr.concat(flat, xr.DataArray(np.array(days, "datetime64[ns]"), dims="time", name="time"))


def brightness(pictures: ReviewPictures, number: int) -> int:
    """What a picture shows of the first outline, stretched as all of a map is."""
    style = Style(layers=("red",), limits=((0.0, 4000.0),))
    drawn = pictures._drawn(0, "close", image=number, style=style)
    pictures.close()
    return round(np.asarray(Image.open(BytesIO(drawn.png)))[0, 0, 0] / 255 * 4000, -2)


@pytest.mark.parametrize(
    ("name", "columns", "days", "shown"),
    [
        ("map", {"year": 2024}, ("2024-01-01", "2025-01-01"), 100),
        ("map", {"year": 2024}, ("2025-01-01", "2024-01-01"), 1100),
        ("map", {"date": np.datetime64("2024-07-02", "ms")}, ("2024-01-01", "2025-01-01"), 100),
        ("2025", {"year": 2024}, ("2025-01-01", "2024-01-01"), 100),
        ("map 2024", {}, ("2024-01-01", "2025-01-01"), 100),
        ("map", {"year": 2024}, ("2024-06-01", "2024-08-01", "2025-08-01"), 1100),
        ("map 2019", {"year": 2024}, ("2019-06-01", "2019-08-01"), 1100),
    ],
)
def test_a_picture_is_of_the_year_of_the_outlines_or_of_its_name(
    tmp_path: Path, name: str, columns: dict[str, Any], days: tuple[str, ...], shown: int
) -> None:
    place, years = str(tmp_path / "review"), of_years(*days)
    rtsx.write_cube(years, tmp_path / "map.zarr")
    table = outlines_of(3).assign(**columns)
    review = create_review(table, place, cubes={name: str(tmp_path / "map.zarr")})
    assert brightness(ReviewPictures.open(review, opener=str), 0) == shown


@pytest.mark.parametrize(
    ("name", "columns", "said"),
    [
        ("map", {}, "times of 2024 and 2025, and the outlines state no year. .* --cube 2025=CUBE"),
        ("map", {"year": 2023}, "the outlines are of 2023"),
        ("map", {"year": [2024, 2025, 2025]}, "the outlines are of 2024 and 2025"),
        ("2023", {"year": 2024}, "times of 2024 and 2025, and none of 2023"),
    ],
)
def test_an_image_of_which_nobody_knows_the_year_is_refused(
    tmp_path: Path, name: str, columns: dict[str, Any], said: str
) -> None:
    years = of_years("2024-01-01", "2025-01-01")
    with pytest.raises(ReviewError, match=said):
        create_review(
            outlines_of(3).assign(**columns), str(tmp_path / "review"), cubes={name: "map"}, opener=lambda _: years
        )
    with pytest.raises(ReviewError, match="2 times without dates"):
        create_review(
            outlines_of(3), str(tmp_path / "review"), cubes={"2024": "map"}, opener=lambda _: years.drop_vars("time")
        )
    assert not (tmp_path / "review").exists()


def test_images_of_another_year_than_the_outlines_say_so_in_their_name(tmp_path: Path) -> None:
    for days in (("2019-06-01",), ("2019-06-01", "2019-08-01")):
        with pytest.raises(
            ReviewError, match=r"times of 2019, and the outlines are of 2024\. .* --cube 'map 2019=CUBE'"
        ):
            create_review(
                outlines_of(3).assign(year=2024),
                str(tmp_path / "review"),
                cubes={"image": "map"},
                opener=lambda _, days=days: of_years(*days),
            )


@pytest.mark.parametrize("name", ["map", "scene 2019 of 7"])
def test_a_review_from_before_years_were_asked_for_is_served_as_it_was(tmp_path: Path, name: str) -> None:
    review = create_review(outlines_of(3), str(tmp_path / "review"), cubes={name: "map"}, opener=lambda _: image())
    years = of_years("2024-01-01", "2025-01-01")
    with pytest.warns(RuntimeWarning, match="the last time of .* is shown, as it always was"):
        pictures = ReviewPictures.open(review, opener=lambda _: years)
    assert brightness(pictures, 0) == 1100


def test_pictures_take_no_more_memory_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = ReviewPictures.open(make(tmp_path), opener=lambda _: image())
    look = lambda row: pictures.picture(row, "close", image=0, style="red").result()  # noqa: E731
    size = len(look(0).png)
    monkeypatch.setattr("rtsx.review.pictures._KEPT_BYTES", int(2.5 * size))
    for row in range(1, 6):
        look(row)
    pictures._pool.shutdown()  # after what follows a picture
    assert 0 < sum(len(made.result().png) for made in pictures._kept.values()) <= 2.5 * size


@pytest.mark.parametrize(
    ("error", "status"), [(LabelError("no place"), 409), (OSError("bucket"), 503), (ReviewError("no"), 409)]
)
def test_what_goes_wrong_is_said_and_told_from_a_server_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(ReviewService, "claim", fail)
    with served(make(tmp_path)) as page:
        reply = page.post("api/claim")
    assert reply.status_code == status
    assert ("rtsx review serve says why" if status == 503 else str(error)) in reply.json()["error"]
