"""Advice of error messages, which functions give in their own words, in those of the command line that was typed.

`overwrite=True` is `--overwrite` of the command in use, or `overwrite: true` in the YAML file that it was given; a function is
the command of its name.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from rtsx.cli.app import app
from rtsx.cli.config import Kind, schema_of
from rtsx.storage.diagnosis import RASTER_SUFFIXES

_OPTIONS = {
    "class_name": "--class",
    "classes": "--class",
    "columns": "--column",
    "loggers": "--log",
    "mapped": "--map",
    "min_object_area_m2": "--min-area-m2",
    "num_workers": "--workers",
    "scale_factor": "--scale",
    "overlapping": "--merge",
}
"""Options that are called otherwise than what they set; taken where the command has them."""
_COMMANDS = {
    "ModelBundle.open": "model import",
    "clean_footprints": "footprints --flags",
    "extract_footprints": "footprints",
    "level2_footprints": "merge",
    "merge_footprints": "merge",
    "predict_cube": "predict",
    "standardise_labels": "labels standardise",
    "track_footprints": "track",
}
"""Commands by the functions that they are the names of."""
_TOOLS = {
    "to_crs": "ogr2ogr -t_srs EPSG:CODE NEW OLD",
    "set_crs": "ogr2ogr -a_srs EPSG:CODE NEW OLD",
    "make_valid": "ogr2ogr -makevalid NEW OLD",
    "explode": "ogr2ogr -explodecollections NEW OLD",
    "write_crs": "rio edit-info --crs EPSG:CODE FILE",
    "write_transform": "rio edit-info --transform '[...]' FILE",
    "reproject": "gdalwarp OLD NEW",
    "reproject_match": "gdalwarp -t_srs EPSG:CODE -te XMIN YMIN XMAX YMAX -tr X Y OLD NEW",
}
"""What GDAL and rasterio bring for the same, by the methods of geopandas and rioxarray."""
_KINDS: Mapping[str, Kind] = {
    "train": "train",
    "cross-validate": "train",
    "evaluate": "evaluate",
    "order": "order",
    "campaign": "campaign",
}
"""Kind of YAML file that a command reads; of cubes for all others."""
_LIBRARIES = dict.fromkeys(("array", "cube", "ds", "pred", "raster", "water", "xr"), "xarray") | dict.fromkeys(
    ("footprint_id", "footprints", "labels", "outlines", "table"), "geopandas"
)
"""Libraries by the objects that messages show in their hands, for what has no tool at the prompt."""

_WITHIN = r"(?:[^()]|\([^()]*\))*"
_CALL = re.compile(rf"(?:(?P<of>[A-Za-z_][\w.]*(?:\['?\w+'?\])?)\.)?(?P<name>[A-Za-z_]\w*)(?P<args>\({_WITHIN}\))?")
_VALUE = r"""True|False|None|'[^']*'|"[^"]*"|\[[^\]]*\]|\([^()]*\)|\{[^}]*\}|[-+]?[A-Za-z0-9_][\w.+-]*"""
_KEYWORD = re.compile(rf"(?<![\w/\\&?|=.:'\"-])(?P<name>[a-z][a-z0-9_]*)=(?P<value>{_VALUE})?(?![\w=])")
_LIBRARY = re.compile(r",? or with rioxarray's \w+|, as rtsx\.write_cube\(.*?\) does")
_CODE = re.compile(
    r"`[^`]*(?:\bcube[\[.]|\bcube =|\bnp\.|\.attrs|\.astype\()[^`]*`|\bcube(?:\[[^\]]*\])?\.attrs\.\w+\([^)]*\)|\bnp\.\w+\((?:[^()]|\([^()]*\))*\)"
)
_OF_RASTERS = ("sensor", "mask", "mask_rule")
"""Options about raster files; a YAML file has keys for that."""
_OF_TRUTH = ("band", "class_column", "class_name", "classes", "crs", "ignored", "layer")
"""Options of `rtsx evaluate` about one truth; a YAML file has keys for that, too."""
_PACKING = {"scale_factor": "scale", "nodata": "nodata"}
"""Keys of a layer in a YAML file by the options that set them."""
_ATTRIBUTES = {"_FillValue": "nodata"}
"""Keys of YAML files by the attributes of a cube that say the same."""
_ATTRIBUTE = re.compile(
    r"\b(?:cube|array)(?:\['?\w+'?\])?\.attrs\['(?P<name>\w+)'\](?: = (?P<value>-?\w[\w.+-]*\w|-?\w))?"
)
_UNPACKED = re.compile(
    r"(?:Remove it|leave the scale out), with `?cube\['(?P<layer>\w+)'\]\.attrs\.pop\('scale_factor'[^`;,]*(?:; [^`]*|, None\))?`?"
)
"""That stored values are physical: the attribute stands in a file, or an option or a key of a YAML file has set it."""
_CLAUSE = rf"(?:[^.;()]|\.(?=\S)|\({_WITHIN}\))*"
_IN_PYTHON = re.compile(rf"; in\s+Python, {_CLAUSE}(?=[.;]|$)| In\s+Python, {_CLAUSE}\.?")
"""What a message says to whoever calls functions; it is always a clause or a sentence of its own."""
_NAME = re.compile(r"(?<![\w/.\\:'\"`\[{-])[a-z]+(?:_[a-z0-9]+)+(?![\w(\[='\"`:/-]|\.\w)")
"""An argument in the midst of a sentence."""
_RESOLUTION = re.compile(
    r"Open layers (?P<layers>\S+(?:, \S+)*) at a resolution of (?P<size>[\d.e+-]+)(?P<other> by [\d.e+-]+)? \w+ of (?P<crs>EPSG:\d+)\."
)


def in_command_words(message: str, words: Sequence[str], *, error: BaseException | None = None) -> str:
    """Return a message in the words of the command that it came from.

    Parameters
    ----------
    message
        What a function says.
    words
        The command line after `rtsx`.
    error
        The error, where it is one: those that commands raise are in their words already.

    Examples
    --------
    >>> in_command_words("It exists. Pass overwrite=True.", ["cube", "build", "cube.yaml"])
    'It exists. Pass --overwrite.'
    >>> in_command_words("Run it with precision='float32'.", ["campaign", "run", "campaign.yaml"])
    'Run it with `prediction: {precision: float32}` in campaign.yaml.'
    """
    if error is not None and _raised_by(error).startswith("rtsx.cli."):
        return message
    speech = _speech(tuple(words))
    message = _IN_PYTHON.sub("", _LIBRARY.sub("", message))
    message = _RESOLUTION.sub(lambda found: speech.resolution(found), message)
    message = _UNPACKED.sub(lambda found: speech.unpacked(found), message)
    message = _CODE.sub("xarray", message)
    message = _ATTRIBUTE.sub(lambda found: speech.attribute(found), message)
    message = _CALL.sub(lambda found: speech.call(found), message)
    message = _KEYWORD.sub(lambda found: speech.keyword(found["name"], found["value"]), message)
    return _NAME.sub(lambda found: speech.name(found[0]), message)


@cache
def _speech(words: tuple[str, ...]) -> "_Speech":
    return _Speech(words)


class _Speech:
    """The words of one command line."""

    def __init__(self, words: Sequence[str]) -> None:
        names, command = [], get_command(app)
        for word in words:
            if not hasattr(command, "commands"):
                break
            if word in command.commands:
                names.append(word)
                command = command.load(word) if hasattr(command, "load") else command.commands[word]
        self._name = names[0] if names else ""
        self._options = {
            name: option
            for option in getattr(command, "params", ())
            for name in (option.name, *(one.lstrip("-").replace("-", "_") for one in option.opts))
            if option.param_type_name == "option"
        }
        self._flags = {option.opts[-1]: option for option in self._options.values()}
        self._files = [word for word in words if Path(word).suffix.lower() in {".yaml", ".yml"}]
        self._given, named = self._read(words)
        self._rasters = [word for word in named if Path(word).suffix.lower() in RASTER_SUFFIXES]

    def _read(self, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Return values of options by their names, and the words that belong to none."""
        options: dict[str, str] = {}
        rest: list[str] = []
        waiting = list(words)
        while waiting:
            word, equals, value = waiting.pop(0).partition("=")
            option = self._options.get(word.lstrip("-").replace("-", "_")) if word.startswith("--") else None
            if option is not None and not option.is_flag and (equals or waiting):
                options[str(option.name)] = value if equals else waiting.pop(0)
            elif option is None and not word.startswith("-"):
                rest.append(word + equals + value)
        return options, rest

    def keyword(self, name: str, value: str | None) -> str:
        """`name=value` as an option, else as a key of the YAML file, else without what is Python about it."""
        if name == "dtype" and "float32" in self._options:
            return "--float32" if value is not None and "float32" in value else "no --float32"
        if (name, value) == ("layout", "'native'") and "native" in self._options:
            return "--native"
        option = self._options.get(name) or self._flags.get(_OPTIONS.get(name, ""))
        if self._is_of_file(name):
            option = None
        plain = "" if value is None else _plain(value)
        if plain == "..." and option is not None:
            plain = option.metavar or "..."
        if option is not None and not (option.is_flag and value in {None, "None"} and name != "overwrite"):
            if option.is_flag:
                off = option.secondary_opts[0] if option.secondary_opts else f"no {option.opts[-1]}"
                return off if value == "False" else str(option.opts[-1])
            return f"{option.opts[-1]} {plain}".rstrip()
        keys = self._keys(name)
        if keys:
            text = f"{keys[-1]}: {_yaml(value)}".rstrip() if value is not None else f"{keys[-1]}:"
            for key in reversed(keys[:-1]):
                text = f"{key}: {{{text}}}"
            return f"`{text}` in {self._files[0]}"
        return f"{name.replace('_', ' ')} {plain}".rstrip()

    def name(self, name: str) -> str:
        """Return an argument as the option that sets it."""
        option = self._options.get(name)
        return name if option is None or self._is_of_file(name) else str(option.opts[-1])

    def _is_of_file(self, name: str) -> bool:
        """Test whether the command refuses the option of this name beside the YAML file that it was given."""
        of_file = _OF_RASTERS + _OF_TRUTH * (self._name == "evaluate")
        return bool(self._files) and name in of_file

    def attribute(self, found: "re.Match[str]") -> str:
        """Return an attribute of a cube's layer, with the value that it is to have."""
        return self.keyword(_ATTRIBUTES.get(found["name"], found["name"]), found["value"])

    def resolution(self, found: "re.Match[str]") -> str:
        """Another resolution: a key of the YAML file, or for raster files the lines of one."""
        size = float(found["size"])
        if self._files:
            return f"Set {self.keyword('resolution', f'{size:g}')}."
        if len(self._rasters) != 1 or found["other"]:
            return found[0]
        lines = yaml.safe_dump(self._config(found, size), sort_keys=False, default_flow_style=None, width=200)
        return (
            f"Write these lines into a file such as cube.yaml, and give that in place of {self._rasters[0]}:\n{lines}"
        )

    def unpacked(self, found: "re.Match[str]") -> str:
        """Return how a layer comes without a scale: by leaving out what has set it."""
        given, name = self._given, found["layer"]
        said = "leave" if found[0].startswith("leave") else "Leave"
        if self._files:
            return f"{said} scale and sensor of {name} out of {self._files[0]}, and name the bands under layers"
        if "scale" in given:
            return f"{said} --scale out"
        if "sensor" in given:
            return f"{said} --sensor {given['sensor']} out, and name the bands in their order with --layers A,B,..."
        if self._rasters:
            return f"{said} the scale out, with gdal_edit.py -scale 1 -offset 0 {self._rasters[0]}"
        return found[0]

    def _config(self, found: "re.Match[str]", size: float) -> dict[str, Any]:
        """Return the config of a cube of the raster files and options of the line."""
        given = self._given
        said = {key: float(given[name]) for key, name in _PACKING.items() if name in given}
        image: dict[str, Any] = {"files": self._rasters[0]}
        if "sensor" in given:
            image["sensor"] = given["sensor"]
        elif "layers" in given:
            named = given["layers"].split(",")
            image["layers"] = {name: {"band": place, **said} for place, name in enumerate(named, start=1)}
        else:
            named = [name for name in found["layers"].split(", ") if name != "ndvi"]  # computed from two of them
            image["layers"] = {name: {**said} for name in named} if said else named
        if {"mask", "mask_rule"} <= set(given):
            image["files"] = {"image": image["files"], "mask": given["mask"]}
            image["quality"] = {"asset": "mask", "rule": given["mask_rule"]}
        return {
            "grid": {"crs": found["crs"], "resolution": size},
            "region": {"file": self._rasters[0]},
            "sources": {"image": image},
        }

    def call(self, found: "re.Match[str]") -> str:
        """Return a call, or the dotted name of a function, as a command, a tool, or what does it."""
        of, name, args = found["of"] or "", found["name"], found["args"] or ""
        dotted = f"{of}.{name}" if of else name
        command = _COMMANDS.get(name) or _COMMANDS.get(".".join(dotted.split(".")[-2:]))
        is_function = bool(args) or of.split(".")[0] == "rtsx" or "_" in name
        if command is not None and is_function:
            return f"rtsx {command}{''.join(_arguments(dotted + args, command))}"
        if name == "from_module":
            return "rtsx model import as an ONNX file"
        if (name, args) == ("train", "()"):
            return "rtsx train"
        if not of or not args:
            return found[0]
        return _TOOLS.get(name) or _LIBRARIES.get(re.split(r"\W", of)[0], found[0])

    def _keys(self, name: str) -> list[str]:
        """Return where the YAML file has a key: its own name last, after those of the parts it is in; none where it has no such key."""
        schema = self._schema
        waiting: list[tuple[Any, list[str]]] = [(schema, [])]
        seen: set[str] = set()
        while waiting:
            node, path = waiting.pop(0)
            reference = node.get("$ref")
            if reference is not None and reference not in seen:
                seen.add(reference)
                waiting.append((schema["$defs"][reference.rpartition("/")[2]], path))
            if name in node.get("properties", {}):
                return [*path, name]
            waiting += [(part, [*path, key]) for key, part in node.get("properties", {}).items()]
            waiting += [(part, path) for part in (*node.get("anyOf", ()), *node.get("allOf", ()))]
            # Below a name or a number of the user's own the path begins anew, because the message says which one is meant.
            waiting += [
                (node[each], []) for each in ("additionalProperties", "items") if isinstance(node.get(each), dict)
            ]
        return []

    @cached_property
    def _schema(self) -> Any:
        """JSON schema of the YAML file; empty where there is none."""
        return schema_of(_KINDS.get(self._name, "cube")) if self._files else {}


def _raised_by(error: BaseException) -> str:
    """Return the name of the module that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def _arguments(call: str, command: str) -> Iterator[str]:
    """Yield the arguments of an example as those of a command; nothing where the call is no example but a mention."""
    try:
        parsed = ast.parse(call, mode="eval").body
        given = {one.arg: ast.literal_eval(one.value) for one in getattr(parsed, "keywords", ())}
        first = [ast.literal_eval(one) for one in getattr(parsed, "args", ())]
    except (SyntaxError, ValueError):
        return
    if not (first and given):
        return
    speech = _Speech(command.split())
    for one in first:
        yield f" {one}"
    for name, value in given.items():
        yield f" {speech.keyword(str(name), repr(value))}"
    yield " --out FOLDER"


def _plain(value: str) -> str:
    """Return a value of Python as one word of a shell."""
    inner = value[1:-1] if value[0] in "'\"[(" else value
    return re.sub(r",\s*", ",", inner.replace("'", "").replace('"', "")).rstrip(",")


def _yaml(value: str) -> str:
    """Return a value of Python in YAML."""
    words = {"True": "true", "False": "false", "None": "null"}
    return words.get(value, value.replace("(", "[").replace(")", "]") if value[0] in "[(" else value.strip("'\""))
