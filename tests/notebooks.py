"""Notebooks of the documentation: run in this process, kept with what they put out, and shown as pages.

`python -m tests.notebooks` runs them again and keeps what they put out. `mkdocs build` runs none: it shows what is kept, which
`tests/test_notebooks.py` holds to what comes out.
"""

import ast
import base64
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from PIL import Image

PATHS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
_COLOURS = 128
"""Of a picture, so that a notebook stays small."""


def run(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a notebook with the outputs of its cells, run one after the other in a folder."""
    import matplotlib.pyplot as plt  # here, because building the pages needs none of it

    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    cells: list[dict[str, Any]] = []
    with contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cells.append(cell)
                continue
            count = 1 + sum(earlier["cell_type"] == "code" for earlier in cells)
            outputs = list(_outputs("".join(cell["source"]), names, count))
            cells.append({**cell, "execution_count": count, "outputs": outputs})
    return {**notebook, "cells": cells}


def _outputs(source: str, names: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Run a cell as Jupyter does: what it prints, the value of its last line unless a semicolon ends it, its figures."""
    import matplotlib.pyplot as plt
    from PIL import Image

    tree, value = ast.parse(source), None
    ends_in_value = isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = tree.body.pop() if ends_in_value else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    if printed.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        if isinstance(value, Image.Image):
            data = {"text/plain": [f"Picture: {Path(value.filename).name}"], "image/png": _png(value)}
        elif hasattr(value, "_repr_html_") and not type(value).__module__.startswith("xarray"):  # whose ids are random
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        yield {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.savefig(drawn := io.BytesIO(), dpi=80, bbox_inches="tight")
        titles = "; ".join(title for axes in figure.axes if (title := axes.get_title()))
        picture = {"text/plain": [f"Figure: {titles}"], "image/png": _png(Image.open(drawn))}
        yield {"output_type": "display_data", "metadata": {}, "data": picture}
        plt.close(figure)


def _png(picture: "Image.Image") -> str:
    picture.convert("RGB").quantize(_COLOURS, dither=0).save(written := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def page(notebook: dict[str, Any], *, name: str) -> str:
    """Return a notebook as a page of Markdown, with a link to itself."""
    parts = [f"[Download this notebook]({name})"]
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown for output in cell["outputs"] for shown in _shown(output)]
    parts[:2] = parts[1::-1]  # the title comes first
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        yield f'<div><img alt="{data["text/plain"][0]}" src="data:image/png;base64,{data["image/png"]}"></div>'
    elif "text/html" in data:
        table = re.sub("<table[^>]*>", "<table>", "".join(data["text/html"]))  # as all tables of the site
        table = re.sub(r"<style.*?</style>|\n\s*\n", "", table, flags=re.DOTALL)
        yield f"<div>\n{table}\n</div>"
    else:
        text = "".join(output.get("text", data.get("text/plain", [])))
        yield f"```text\n{text.rstrip()}\n```"


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add a page for each notebook; called by `mkdocs build`, which copies the notebooks themselves."""
    from mkdocs.structure.files import File

    for path in PATHS:
        content = page(json.loads(path.read_text()), name=path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
    return files


def main() -> None:
    """Run all notebooks, and keep what they put out."""
    for path in PATHS:
        with tempfile.TemporaryDirectory() as folder:
            made = run(json.loads(path.read_text()), Path(folder))
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
