"""`rtsx review`: people review outlines in a browser, and what they say is merged."""

import json
import re
import webbrowser
from dataclasses import replace
from functools import partial
from getpass import getuser
from pathlib import Path
from shlex import quote
from threading import Event
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, serving, show, show_line
from rtsx.errors import ReviewError
from rtsx.storage import absolute

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from rtsx.campaign import Campaign
    from rtsx.cube import CubeRecipe

__all__ = ["app"]

app = Commands(no_args_is_help=True)

_CHUNK = 256
"""Side of a chunk of what a YAML file describes, px."""
_LARGEST = 1 << 32
"""Pixels of a campaign whose own images are shown: opening so many takes a second, and the list of their chunks grows with them."""
_OF_CAMPAIGN = re.compile(r"campaign(-map)?:(\d{4}):(.+)", re.DOTALL)
"""How a review names the images, or the map, of a campaign: its year, and its YAML file or output."""
_web = partial(typer.Option, rich_help_panel="Server")
_ReviewArgument = Annotated[
    str, typer.Argument(metavar="REVIEW", help="Folder or URL that rtsx review create made.", show_default=False)
]


@app.command()
def create(
    *,
    out: Annotated[
        str, options.Output(metavar="REVIEW", help="Where to: a folder, or a URL such as s3://maps/review.")
    ],
    footprints: Annotated[
        str | None, options.Input(metavar="FILE", help="Outlines to review, as rtsx footprints writes them.")
    ] = None,
    sample: Annotated[
        str | None, options.Input(metavar="FILE", help="A sample to review instead, in random order.")
    ] = None,
    campaign: Annotated[
        str | None,
        options.Input(
            metavar="CAMPAIGN", help="A campaign's YAML file or output: its outlines, and its own images, of one year."
        ),
    ] = None,
    year: Annotated[
        int | None, options.Input(help="Year of the campaign; that of its file, or the newest, if left out.")
    ] = None,
    again: Annotated[
        bool, options.Input("--again", help="Ask once more in a review of what is unsure or disputed.")
    ] = False,
    cube: Annotated[
        list[str] | None,
        options.Input(
            "--cube",
            metavar="[NAME=]CUBE",
            help="Image to look at: a Zarr cube, YAML file or GeoTIFF. Repeatable, newest first.",
        ),
    ] = None,
    order: Annotated[
        Literal["probability", "uncertainty", "random"] | None,
        typer.Option(help="Which outlines come first; probability, and a sample at random, if left out."),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What is asked for; the outlines' own if left out.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Outlines of a batch, at most.", min=1)] = 200,
    repeats: Annotated[
        float,
        typer.Option(help="Part of the outlines (0-1) that a second reviewer sees, for their agreement.", min=0, max=1),
    ] = 0.005,
    seed: Annotated[int, typer.Option(help="Of the order within batches and of the repeats.", min=0)] = 0,
    show_probability: Annotated[
        bool, typer.Option("--show-probability", help="Show the model's probability, which sways reviewers.")
    ] = False,
    lease_days: Annotated[
        float, typer.Option(help="Days without a sign of life after which a batch is free for others.", min=0.001)
    ] = 7.0,
) -> None:
    """Make a queue of outlines for people to review, in batches; or a further round of one.

    Examples
    --------
    rtsx review create --footprints slumps.parquet --cube cube.zarr --out review

    rtsx review create --footprints slumps.parquet --cube 2024=cube.yaml --cube 2019=older.yaml --out s3://maps/review

    rtsx review create --campaign campaign.yaml --year 2024 --out review

    rtsx review create --again --out review
    """
    from rtsx.review import create_review, merge_review, open_review

    n_given = sum(one is not None for one in (footprints, sample)) + again
    if n_given > 1 or (n_given == 0 and campaign is None) or (again and campaign is not None):
        raise options.misused("--footprints", "one of --footprints, --sample, --campaign and --again is given.")
    if year is not None and campaign is None:
        raise options.misused(
            "--year",
            "it is the year of a campaign, and no --campaign is given. The year of another image is stated in its name: "
            "--cube 2024=map.zarr.",
        )
    if again:
        review = open_review(absolute(out))
        made = review.add_round(merge_review(review).open)
        show("Asked again", ("round", made.number), ("outlines", made.n_outlines), ("review", out))
        return
    cubes = dict(_named(given, number) for number, given in enumerate(cube or []))
    if len(cubes) < len(cube or []):
        raise ReviewError("Two cubes have one name; name each: --cube 2024=new.zarr --cube 2019=old.zarr.")
    options.require_there(cubes.values())
    opened = None if campaign is None else options.open_campaign(campaign, year=year)
    if opened is not None and not cubes:
        cubes = dict([_images_of(absolute(str(campaign)), opened)])
    table = _outlines_of(footprints or sample, opened, campaign=str(campaign))
    if sample is not None and "sample_id" not in table.columns:
        raise ReviewError(f"{sample} is no sample: it has no column sample_id. Give outlines with --footprints.")
    review = create_review(
        table if sample is not None else table.drop(columns="sample_id", errors="ignore"),
        absolute(out),
        cubes=cubes,
        order=order,
        class_name=class_name,
        blind=not show_probability,
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        lease_s=lease_days * 86400,
        opener=_cube,
    )
    (first,) = review.rounds()
    batches = sum(batch.repeats is None for batch in first.batches)
    rows = [
        ("outlines", f"{first.n_outlines:,} in {batches:,} batch{'es' if batches > 1 else ''}"),
        ("seen twice", f"{first.n_repeats:,}"),
        ("review", out),
    ]
    show("Ready to review", *rows, ("next", f"rtsx review serve {quote(str(out))}"))


def _outlines_of(source: str | None, opened: "Campaign | None", *, campaign: str) -> "gpd.GeoDataFrame":
    """Read the outlines of a file, or those that a campaign has collected; of a file and a campaign, those of both."""
    from rtsx.footprints.schema import stated_years
    from rtsx.labels.io import read_table

    if source is not None:
        table = read_table(source, what="outlines")
        others = set() if opened is None else stated_years(table) - {opened.plan.year}
        if opened is not None and others:
            raise ReviewError(
                f"{source} has outlines of {' and '.join(map(str, sorted(others)))}, and {campaign} is seen in {opened.plan.year}. Give "
                "those of this year, or another --year."
            )
        if "cut" in table and table["cut"].any():
            raise ReviewError(
                f"{source} has outlines of single cells, of which {int(table['cut'].sum())} are pieces of what goes on in other cells, and no "
                "delivery knows them. Run rtsx campaign collect first, and give what it makes."
            )
        if opened is not None:
            _refuse_foreign(table, source, opened, campaign=campaign)
        return table
    assert opened is not None, "checked by the caller"
    table = opened.outlines()
    if not len(table):
        raise ReviewError(
            f"{campaign} has no outlines of {opened.plan.year}: none of its cells is done, or nothing was found. Look with "
            f"rtsx campaign status {quote(campaign)} --year {opened.plan.year}, or give outlines with --footprints."
        )
    if "cut" in table:  # those of single cells, which no delivery knows
        raise ReviewError(
            f"The outlines of {campaign} in {opened.plan.year} are not collected, so that those across borders of cells are in "
            f"pieces. Run rtsx campaign collect {quote(campaign)} --year {opened.plan.year} first."
        )
    return table


def _refuse_foreign(table: "gpd.GeoDataFrame", source: str, opened: "Campaign", *, campaign: str) -> None:
    """Refuse outlines by another rule than the campaign's, because no delivery would take the review of them."""
    from rtsx.campaign.products.reviews import SAME, are_same

    if not {"footprint_id", *SAME} <= {*table.columns}:
        return
    known = opened.outlines()
    collected = "cut" not in known
    # Where nothing is collected, those across borders of cells are not known yet.
    theirs = (known if collected else known[~known["cut"].astype(bool)]).set_index("footprint_id")
    given = table.drop_duplicates("footprint_id").set_index("footprint_id")
    there = given.index.isin(theirs.index)
    foreign = given.index[~there if collected else []].tolist()
    both = given.index[there]
    foreign += both[~are_same(given.loc[both], theirs.loc[both])].tolist()
    if foreign:
        raise ReviewError(
            f"{len(foreign)} of {len(given)} outlines of {source} are not those of {campaign} in {opened.plan.year}, such as {foreign[0]}: "
            "they were outlined by another threshold or least area, or from another map, and the delivery would refuse their review. "
            f"Leave {source} out, which takes those that rtsx campaign collect makes; or review them apart from the campaign, with "
            "--cube instead of --campaign."
        )


def _named(given: str, number: int) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    if equals and name and "/" not in name:
        return name, absolute(path)
    return ("image" if number == 0 else f"image {number + 1}"), absolute(given)


@app.command()
def serve(
    review: _ReviewArgument,
    *,
    reviewer: Annotated[
        list[str] | None,
        typer.Option("--reviewer", metavar="NAME", help="Who gets an address; you, if left out. Repeatable."),
    ] = None,
    host: Annotated[str, _web(help="Address to listen at; this machine alone reaches the usual one.")] = "127.0.0.1",
    port: Annotated[int, _web(help="Port; 0 for any that is free.", min=0, max=65535)] = 8765,
    certificate: Annotated[str | None, _web(metavar="PEM", help="Certificate for TLS, with --key.")] = None,
    key: Annotated[str | None, _web(metavar="PEM", help="Key of the certificate.")] = None,
    behind_proxy: Annotated[bool, _web("--behind-proxy", help="State that a proxy in front of it does TLS.")] = False,
    address: Annotated[
        str | None,
        _web(metavar="URL", help="What reviewers open, such as https://maps.org/review/; of this machine if left out."),
    ] = None,
    new_tokens: Annotated[bool, _web("--new-tokens", help="End the earlier addresses of these reviewers.")] = False,
    browser: Annotated[bool, _web("--browser/--no-browser", help="Open the page of the first reviewer.")] = True,
) -> None:
    """Serve the page for reviewers, until Ctrl-C; prints an address with a token for each.

    Examples
    --------
    rtsx review serve review

    rtsx review serve s3://maps/review --reviewer ada --reviewer bob --host 0.0.0.0 --certificate cert.pem --key key.pem
    """
    from rtsx.review import open_review, serve_review
    from rtsx.review.plan import check_reviewer

    if (certificate is None) != (key is None):
        raise options.misused("--certificate", "--certificate and --key go together.")
    if address is not None and not address.startswith(("http://", "https://")):
        raise options.misused("--address", f"an address begins with https:// or http://; got {address}")
    names = reviewer or [getuser()]
    for name in names:
        check_reviewer(name)
    opened = open_review(absolute(review))
    pair = None if certificate is None or key is None else (certificate, key)
    with serve_review(
        opened, opener=_image, host=host, port=port, certificate=pair, behind_proxy=behind_proxy
    ) as served:
        places = []
        for name in names:
            if new_tokens:
                opened.revoke(name)
            places.append(f"{(address or served).rstrip('/')}/?token={opened.admit(name)}")
        for name, place in zip(names, places, strict=True):
            typer.echo(f"{name}: {place}")  # not by `show_line`, which hides tokens
        print_info("Ctrl-C stops the server; verdicts that were sent are kept.")
        if browser and not reviewer:
            webbrowser.open(places[0])
        with serving():
            Event().wait()


def _cube(source: str) -> "xr.Dataset":
    from rtsx.viewer import Pyramid

    image = _image(source)
    return image.cube if isinstance(image, Pyramid) else rtsx.open_cube(str(image))


def _image(source: str) -> object:
    from rtsx.campaign.layout import MAP
    from rtsx.config.cube import is_config, load_cube_config
    from rtsx.viewer import Pyramid

    named = _OF_CAMPAIGN.fullmatch(source)
    if named is not None:
        campaign = options.open_campaign(named[3], year=int(named[2]))
        recipe = None if named[1] else _recipe_of(named[3], campaign)
        if recipe is None:
            return Pyramid.of(f"{campaign.output.rstrip('/')}/{MAP}", storage_options=campaign.storage_options)
        return Pyramid.of(replace(recipe, chunk=_CHUNK), cell=campaign.plan.geobox)
    if not is_config(source):
        return source
    config = load_cube_config(source)
    # In small chunks, because a picture shows a few hundred metres and every chunk under it is aligned whole.
    return Pyramid.of(replace(config.recipe(), chunk=_CHUNK), cell=config.cell)


def _images_of(given: str, campaign: "Campaign") -> tuple[str, str]:
    """Return the name and source of what is looked at of a campaign in its year: its own images, else its map."""
    year, (rows, columns) = campaign.plan.year, campaign.plan.shape
    if rows * columns > _LARGEST:
        reason = f"it has {rows:,} x {columns:,} pixels, too many to open its images as one"
    elif _recipe_of(given, campaign) is None:
        reason = "its output holds no config, because it was not planned from a YAML file"
    else:
        return str(year), f"campaign:{year}:{given}"
    print_info(f"The campaign's map is shown: {reason}. Give images with --cube.")
    return f"map {year}", f"campaign-map:{year}:{given}"


def _recipe_of(given: str, campaign: "Campaign") -> "CubeRecipe | None":
    """Return the layers of a campaign in its year, with the searches that were answered when it was planned; None where no config is known."""
    from rtsx.campaign.searches import with_answers
    from rtsx.config import load_campaign_config, stored_campaign_config
    from rtsx.config.cube import is_config

    # By which it was planned; the file may have been edited since.
    if campaign.objects.get(campaign.ledger.layout.config):
        config = stored_campaign_config(campaign)
    elif is_config(given):
        config = load_campaign_config(given, year=campaign.plan.year)
    else:
        return None
    return with_answers(campaign.objects, campaign.ledger.layout, config.resolved().cube.recipe())


@app.command()
def status(
    review: _ReviewArgument, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Tell how far a review is, who has what, and how far reviewers agree.

    Examples
    --------
    rtsx review status review
    """
    from rtsx.review import open_review, review_status

    found = review_status(open_review(absolute(review)))
    if as_json:
        show_line(json.dumps(found.to_dict()), asked=True)
    else:
        show("Review", *found.rows(), asked=True)


@app.command()
def merge(
    review: _ReviewArgument,
    *,
    out: Annotated[
        str,
        options.Output(
            metavar="FOLDER|FILE", help="A folder for all tables, or one .parquet, .gpkg or .fgb file of all outlines."
        ),
    ],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Write outlines with verdicts, what is confirmed, what is refused, and how far reviewers agree; of half a review, too.

    Examples
    --------
    rtsx review merge review --out verified

    rtsx review merge review --out verified.gpkg
    """
    from rtsx.labels.io import TABLE_SUFFIXES
    from rtsx.review import merge_review, open_review

    opened = open_review(absolute(review))
    options.require_absent([out] if Path(out).suffix.lower() in TABLE_SUFFIXES else [], overwrite=overwrite)
    merged = merge_review(opened)
    files = merged.write(out, overwrite=overwrite)
    show("Merged", *merged.status.rows(), ("written", ", ".join(map(str, files))))
    if not merged.status.is_complete:
        print_info("The review is not complete: outlines without a verdict have none in the tables.")
