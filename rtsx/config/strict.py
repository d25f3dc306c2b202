"""Models that refuse unknown keys, and what their errors say to a person."""

import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from rtsx.config.complaint import Complaint, KeyPath, refuse
from rtsx.config.yaml import Document, dump_yaml
from rtsx.redaction import is_secret_name
from rtsx.storage import absolute

__all__ = ["FilePath", "Names", "Strict", "from_folder", "is_glance", "validated"]

_Model = TypeVar("_Model", bound="Strict")


class Strict(BaseModel):
    """A frozen part of a config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def to_yaml(self) -> str:
        """YAML text that comes back equal; keys without a value are left out."""
        return dump_yaml(self.model_dump(exclude_none=True))

    def changed(self, **fields: object) -> Self:
        """A copy with other values; they are checked."""
        return type(self).model_validate({**{name: getattr(self, name) for name in self.model_fields_set}, **fields})


def is_glance(info: ValidationInfo) -> bool:
    """Whether a check that loads torch is left out for now; see `validated`."""
    return isinstance(info.context, Mapping) and bool(info.context.get("glance"))


def validated(model: type[_Model], document: Document, *, glance: bool = False) -> _Model:
    """The config of a document.

    Parameters
    ----------
    model
        What the document is to be.
    document
        The document.
    glance
        Leave out the checks for which a network has to be built: what is wrong in spelling is then said in less than a second.

    Raises
    ------
    ConfigError
        Something is wrong; all of it is listed, by line and key.
    """
    complaints = list(document.complaints)
    cause: ValidationError | None = None
    try:
        config = model.model_validate(
            document.values, context={"folder": Path(document.name).absolute().parent, "glance": glance}
        )
    except ValidationError as error:
        cause = error
        complaints += _told(error, model)
    if complaints:
        refuse(document.name, complaints, lines=document.lines, cause=cause)
    return config


def _told(error: ValidationError, model: type[BaseModel]) -> Iterator[Complaint]:
    for one in error.errors():
        path: KeyPath = one["loc"]
        match one["type"]:
            case "extra_forbidden":
                yield Complaint(path, _unknown(str(path[-1]), sorted(_keys(model, path[:-1]))))
            case "missing":
                yield Complaint(path, "this key has to be given")
            case "value_error":
                yield Complaint(path, str(one["ctx"]["error"]).rstrip("."))
            case _:
                text = one["msg"][0].lower() + one["msg"][1:]
                got = "" if any(is_secret_name(str(part)) for part in path) else f"; got {str(one['input'])[:80]!r}"
                yield Complaint(path, f"{text}{got}")


def _unknown(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"unknown key{hint} Known keys are {', '.join(known)}" if near else f"unknown key; known are {', '.join(known)}"
    )


def _keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """Known keys of the model at a path."""
    found: Any = model
    for part in path:
        fields = getattr(found, "model_fields", None)
        if fields is not None:
            found = _inner(fields[part].annotation) if part in fields else None
        elif get_origin(found) is dict:
            found = _inner(get_args(found)[1])
        elif get_origin(found) in (list, tuple):
            found = _inner(get_args(found)[0])
    return set(getattr(found, "model_fields", {}))


def _inner(annotation: Any) -> Any:
    """The type within ``X | None`` and ``Annotated``; of several, the first model."""
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next((_inner(one) for one in get_args(annotation) if one is not type(None)), None)
    return annotation


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=tuple[str, ...] | str)]
"""One name or several."""


def from_folder(path: str, info: ValidationInfo) -> str:
    """A path that does not depend on the working directory: relative ones count from the folder of the config."""
    folder = (info.context or {}).get("folder") if isinstance(info.context, Mapping) else None
    return absolute(path, folder=folder)


FilePath = Annotated[str, AfterValidator(from_folder)]
"""Path or URL; a relative path counts from the folder of the config, ``~`` is the home folder."""
