"""What the words of `rtsx campaign` name: a campaign, the machines that run it, and cells of it.

What knows campaigns is imported within the functions, because it loads libraries that `rtsx --help` should not wait for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rtsx.cli.console import notice
from rtsx.cli.opening import require_models, require_there
from rtsx.errors import CampaignError, ClusterError, GridError

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.campaign.cell_table import Address
    from rtsx.campaign.cluster_spec import ClusterSpec
    from rtsx.config.campaign import CampaignConfig

__all__ = ["cells_named", "cluster_of", "created", "loaded", "opened_campaign"]


def created(config: "CampaignConfig") -> "Campaign":
    """The campaign of a config, planned if it is not yet; the resolved config is stored beside the plan.

    Raises
    ------
    ConfigError, BundleError, CampaignError, OutputNotWritableError
        See `rtsx.load_campaign` and `rtsx.Campaign.create`.
    """
    from rtsx.campaign import Campaign

    return Campaign.create(config.recipe(), config=config.resolved().without_secrets().to_yaml())


def loaded(config: Path, *, year: int | None) -> "CampaignConfig":
    """Read a config, whose models have to be there.

    Raises
    ------
    ConfigError, BundleError, InputNotFoundError
        It cannot be read, or names what is not there.
    """
    require_there([str(config)])
    from rtsx.config import load_campaign_config

    said = load_campaign_config(config, year=year)
    require_models(said.model)
    return said


def opened_campaign(given: str, *, year: int | None) -> "Campaign":
    """The campaign that a config or an output names, to look at it; neither bundles nor sources are needed.

    Raises
    ------
    ConfigError
        The config cannot be read.
    CampaignError
        There is no plan of that year.
    """
    if Path(given).suffix.lower() not in (".yaml", ".yml"):
        if "://" not in given and not Path(given).expanduser().is_dir():
            raise CampaignError(f"{given} holds no campaign. Check the path, or plan the campaign first.")
        from rtsx.campaign import Campaign  # here, because it is heavy

        opened = Campaign.open(given, year=year)
    else:
        require_there([given])
        from rtsx.config import load_campaign_config

        config = load_campaign_config(given, year=year)
        from rtsx.campaign import Campaign

        opened = Campaign.open(config.output, year=config.year, storage_options=config.storage_options)
    if year is None:
        notice(f"Year {opened.plan.year}, as no --year was given")
    return opened


def cluster_of(config: "CampaignConfig", *, local: bool, **given: Any) -> "ClusterSpec":
    """The machines that options name, or the config where they leave something open.

    Parameters
    ----------
    config
        The config.
    local
        Whether to leave out what the config says of machines.
    given
        Fields of `ClusterConfig`; None where an option was not given.

    Raises
    ------
    ClusterError
        Options contradict each other, or the config.

    Examples
    --------
    >>> from rtsx.config import CampaignConfig
    >>> files = {"files": "scene.tif", "layers": ["red"]}
    >>> said = {"name": "a", "year": 2024, "region": "arctic", "cube": {"sources": {"scene": files}}, "model": "demo"}
    >>> config = CampaignConfig.model_validate({**said, "output": "out", "cluster": {"gateway": "http://a", "adapt": [0, 9]}})
    >>> cluster_of(config, local=False, adapt=(2, 4)).adapt, cluster_of(config, local=True, workers=2).kind
    ((2, 4), 'local')
    """
    from pydantic import ValidationError

    from rtsx.config.cluster import ClusterConfig

    chosen = {name: value for name, value in given.items() if value is not None}
    # Another scheduler or gateway is another cluster; anything else changes the one that the file names.
    is_another = local or bool({"scheduler", "gateway"} & set(chosen))
    said = {} if is_another else config.cluster.model_dump(exclude_unset=True)
    for one, other in (("workers", "adapt"), ("adapt", "workers")):
        if one in chosen and other not in chosen:
            said.pop(other, None)
    try:
        return ClusterConfig.model_validate({**said, **chosen}).spec()
    except ValidationError as error:
        raise ClusterError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error


def cells_named(names: Sequence[str] | None) -> "list[Address] | None":
    """Addresses of cells by name; None for none, which means all.

    Raises
    ------
    typer.BadParameter
        One is no name of a cell.
    """
    from rtsx.grid.cell import parse_cell_id

    if not names:
        return None
    try:
        return [parse_cell_id(name) for name in names]
    except GridError as error:
        raise typer.BadParameter(str(error), param_hint="--cell") from error
