"""A bundle on disk: a folder written whole or not at all, and its STAC Item with the Machine Learning Model (MLM) extension.

Any STAC client can list, search and show it. What only rtsx needs is in `rtsx:*` properties, which are the ones that are
read back: MLM has no word for half of it, and rounds the rest.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import pystac
from fsspec.implementations.local import LocalFileSystem

from rtsx.errors import BundleError, OutputExistsError
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Metadata
from rtsx.model.source import ARTIFACT_FORMATS, Artifact, NetworkSource, digest_of_bytes
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.redaction import redacted_values
from rtsx.storage import file_system, refuse_other_format, settle, staged
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.object_store import remove_tree

ITEM_NAME = "item.json"
"""Name of the metadata file in a bundle's folder."""

_FORMAT = 1
"""Version of the `rtsx:*` properties; raised when an older rtsx could misread them."""
# 1.4 instead of the newest, because it is the newest that pystac reads.
_MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"


_STATED = (
    *("inputs", "classes", "activation", "tile", "overlap", "trim", "stride", "threshold", "temperature", "fill"),
    *("pixel_m", "preset", "bn_mode", "reach", "provenance", "outlines"),
)
"""Fields of the metadata that a bundle states, as ``rtsx:NAME``."""
_LATER = {"temperature": None, "pixel_m": None, "outlines": None}
"""Those that bundles of 0.1 do not state."""


@dataclass(frozen=True, kw_only=True)
class BundleItem:
    """A metadata file as read."""

    metadata: Metadata
    """Everything said about the network."""
    kind: str
    """Which source reads the weights: "smp", "torchscript", "export" or "onnx"."""
    filename: str
    """Name of the weights' file, relative to the metadata file."""
    options: Mapping[str, object]
    """What the source needs besides the file."""
    checksum: str
    """sha256 of the weights' file, as hex."""


def write_item(metadata: Metadata, *, source: NetworkSource, artifact: Artifact) -> bytes:
    """Write the metadata file of a complete bundle, as JSON bytes."""
    name, form = metadata.id or "model", ARTIFACT_FORMATS[artifact.kind]
    item = pystac.Item(
        id=name,
        geometry=None,  # a bundle has no place of its own
        bbox=None,
        datetime=datetime.now(UTC),
        properties={
            **_mlm_properties(metadata, source=source),
            **_own_properties(metadata, source=source, artifact=artifact),
        },
        stac_extensions=[_MLM, _FILE, _CLASSIFICATION],
    )
    asset = pystac.Asset(
        href=f"./{form.filename}",
        title=f"Weights of {name}",
        media_type=form.media_type,
        roles=["mlm:model", "mlm:weights"],
        extra_fields={
            "mlm:artifact_type": form.artifact_type,
            "bands": _bands(metadata),
            "file:size": len(artifact.data),
            # Multihash: sha2-256 (0x12) of 32 bytes (0x20).
            "file:checksum": f"1220{digest_of_bytes(artifact.data)}",
        },
    )
    item.add_asset("weights", asset)
    return json.dumps(item.to_dict(include_self_link=False), indent=2, allow_nan=False).encode()


def read_item(raw: bytes, *, where: str) -> BundleItem:
    """Read a metadata file.

    Parameters
    ----------
    raw
        Content of the file.
    where
        Its path or URL, for messages.

    Raises
    ------
    BundleError
        The file is damaged, was not written by rtsx, or was written by a newer one.
    """
    document = json_value(raw, what=where, error=BundleError)
    with wrap_damage(where, BundleError):
        properties = document["properties"]
        written = properties.get("rtsx:format")
        asset = document["assets"]["weights"]
    if written is None:
        raise BundleError(
            f"{where} describes a model that rtsx did not save. Open its weights instead, with layers=, classes= and the "
            "other keywords."
        )
    if parsed_json(json.dumps(written), int, what=f"{where}, rtsx:format", error=BundleError) > _FORMAT:
        raise BundleError(f"{where} was written by a newer rtsx (format {written}, known {_FORMAT}). Update rtsx.")
    with wrap_damage(where, BundleError):
        network = properties["rtsx:network"]
        described = {
            "metadata": {
                "id": document["id"],
                **_LATER,
                **{
                    name: properties[f"rtsx:{name}"]
                    for name in _STATED
                    if f"rtsx:{name}" in properties or name not in _LATER
                },
            },
            "kind": network["kind"],
            "filename": _file_beside(asset["href"], where=where),
            "options": {**network["options"], "digest": network["digest"]},
            "checksum": asset["file:checksum"],
        }
    item = parsed_json(json.dumps(described), BundleItem, what=where, error=BundleError)
    return replace(item, checksum=item.checksum.removeprefix("1220"))


def _file_beside(href: object, *, where: str) -> str:
    """Return the name of a file in the bundle's own folder.

    Raises
    ------
    BundleError
        It may lie elsewhere: a bundle is one folder, so that nobody's other files pass for its weights.
    """
    name = str(href).removeprefix("./")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BundleError(
            f"{where} names its weights as {str(href)[:200]!r}; they have to lie in the same folder, as weights.safetensors does. "
            "Put them there, and correct the href."
        )
    return name


def _own_properties(metadata: Metadata, *, source: NetworkSource, artifact: Artifact) -> dict[str, object]:
    stated = asdict(metadata) | {"provenance": redacted_values(metadata.provenance or {})}
    return {
        "rtsx:format": _FORMAT,
        **{f"rtsx:{name}": stated[name] for name in _STATED if (name, stated[name]) != ("outlines", None)},
        "rtsx:network": {"kind": artifact.kind, "options": dict(artifact.options), "digest": source.digest},
    }


def _mlm_properties(metadata: Metadata, *, source: NetworkSource) -> dict[str, object]:
    inputs = metadata.inputs or ()
    names = [layer.name for layer in inputs]
    is_onnx = source.framework == "onnx"
    side = metadata.tile
    n_classes = len(metadata.classes or ())
    return {
        "mlm:name": _mlm_name(metadata.id or "model"),
        "mlm:architecture": source.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if is_onnx else "PyTorch",
        **({} if is_onnx else {"mlm:framework_version": version("torch")}),
        "mlm:total_parameters": source.n_parameters,
        "mlm:input": [
            {
                "name": "tile",
                "bands": names,
                "input": {
                    "shape": [-1, len(names), side, side],
                    "dim_order": ["batch", "bands", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": [_value_scaling(layer) for layer in inputs],
                "pre_processing_function": None,
            }
        ],
        "mlm:output": [
            {
                "name": "probability",
                "tasks": ["semantic-segmentation"],
                "result": {
                    "shape": [-1, n_classes, side, side],
                    "dim_order": ["batch", "class", "height", "width"],
                    "data_type": "float32",
                },
                "classification:classes": _classes(metadata.classes or ()),
                "post_processing_function": _post_processing(metadata.activation, metadata.temperature or 1.0),
            }
        ],
        "bands": _bands(metadata),
    }


def _bands(metadata: Metadata) -> list[dict[str, str]]:
    # Twice in the file, because MLM looks for them in the properties, where STAC has them only if an asset has them too.
    return [{"name": layer.name} for layer in metadata.inputs or ()]


def _value_scaling(layer: InputLayer) -> dict[str, object]:
    if layer.clip is None and layer.scale > 0:
        return {"type": "z-score", "mean": -layer.offset / layer.scale, "stddev": 1 / layer.scale}
    affine = f"x * {layer.scale!r} + {layer.offset!r}"
    clipped = affine if layer.clip is None else f"numpy.clip({affine}, {layer.clip[0]!r}, {layer.clip[1]!r})"
    return {"type": "processing", "format": "python", "expression": clipped}


def _classes(names: Sequence[str]) -> list[dict[str, object]]:
    # A binary network answers one question; MLM wants both answers named.
    listed = ("background", *names) if len(names) == 1 else names
    return [
        {"value": value, "name": re.sub(r"[^0-9A-Za-z_-]", "_", name), "description": name}
        for value, name in enumerate(listed)
    ]


def _post_processing(activation: str | None, temperature: float) -> dict[str, object] | None:
    scaled = "x" if temperature == 1 else f"x / {temperature!r}"
    if activation == "sigmoid":
        return {"format": "python", "expression": f"torch.sigmoid({scaled})"}
    if activation == "softmax":
        return {"format": "python", "expression": f"torch.softmax({scaled}, dim=1)"}
    return None


def _mlm_name(name: str) -> str:
    """Return the name with the characters that MLM allows: at least three, a letter first, a letter or digit last."""
    allowed = re.sub(r"[^a-zA-Z0-9_.\-\s]", "-", name).strip("_.- \t\n")
    if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", allowed):
        return allowed
    return f"model-{allowed}" if allowed else "model"


_BUNDLE_FILES = {ITEM_NAME, *(form.filename for form in ARTIFACT_FORMATS.values())}
"""Names that bundles are made of; a folder that holds anything else is never replaced."""


def write_folder(path: str, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write files into a new folder, at a local path or any fsspec URL.

    A local folder is written beside its place and renamed. Object stores cannot rename: there the files are written in
    the order given, so the last one is the mark that all are there.

    Raises
    ------
    OutputExistsError
        Something is there, and `overwrite` is False or it is no bundle, or holds more than one.
    OutputNotWritableError
        The place cannot be written, or the disk is full.
    """
    refuse_other_format(path, what="the folder of a bundle")
    fs, inside = file_system(path, {}, error=BundleError)
    inside = inside.rstrip("/")
    refuse = partial(_refuse_what_is_no_bundle, fs, path=path)
    if isinstance(fs, LocalFileSystem):
        with staged(inside, overwrite=overwrite, replaceable=lambda there: refuse(str(there))) as draft:
            draft.mkdir()
            for name, content in files.items():
                (draft / name).write_bytes(content)
                settle(draft / name)
        return
    is_there = fs.exists(inside)
    if is_there and not overwrite:
        raise OutputExistsError(f"{path} exists already. Choose another path, or pass overwrite=True to replace it.")
    if is_there:
        refuse(inside)
    with write_failures(path):
        if is_there:
            remove_tree(fs, inside)
        fs.makedirs(inside, exist_ok=True)
        for name, content in files.items():
            fs.pipe_file(f"{inside}/{name}", content)


def _refuse_what_is_no_bundle(fs: Any, inside: str, *, path: str) -> None:
    if fs.isfile(inside):
        raise OutputExistsError(f"{path} is a file, not a bundle, so it is not overwritten. Choose another path.")
    names = {name.rstrip("/").rpartition("/")[2] for name in fs.ls(inside, detail=False) if name.rstrip("/") != inside}
    if ITEM_NAME not in names:
        raise OutputExistsError(
            f"{path} exists and is no bundle (it has no {ITEM_NAME}), so it is not overwritten. Choose another path, or "
            "remove it yourself."
        )
    if names - _BUNDLE_FILES:
        raise OutputExistsError(
            f"{path} holds more than a bundle: {sorted(names - _BUNDLE_FILES)[:8]}, so it is not overwritten. Choose "
            "another path, or move those files away."
        )
