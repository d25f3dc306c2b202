"""What QGIS makes of a package: as a program of the system's Python, ``python3 in_qgis.py PACKAGE PICTURE``, and the call of it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_PYTHON = "/usr/bin/python3"
"""Debian's, for which its QGIS is built."""


def open_in_qgis(package: Path, picture: Path) -> dict[str, dict[str, Any]]:
    """Open the project of a package; returns its layers by title, the uppermost first, and draws those that are shown.

    Of each: whether it and its CRS are valid, its CRS, its renderer, also after its QML was loaded, and features by colour.
    Skips the test where there is no QGIS.
    """
    import pytest

    places = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR"), str(picture.parent))
    environment = {"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", **places}
    if not Path(_PYTHON).exists():
        pytest.skip(f"there is no {_PYTHON}")
    command = [_PYTHON, __file__, str(package), str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "No module named 'qgis'" in done.stderr:
        pytest.skip(f"{_PYTHON} has no QGIS: apt-get install --no-install-recommends python3-qgis qgis-providers")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr.replace("Warning 1: Non-conformant content", ""), done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def _main(package: Path, picture: str) -> None:
    from qgis.core import QgsApplication, QgsMapRendererSequentialJob, QgsMapSettings, QgsProject
    from qgis.PyQt.QtCore import QSize

    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    assert project.read(str(package / "map.qgz")), project.error()
    nodes = project.layerTreeRoot().findLayers()
    layers = {node.name(): _looked_at(node.layer()) for node in nodes}
    settings = QgsMapSettings()
    settings.setLayers([node.layer() for node in nodes if node.isVisible()])
    settings.setDestinationCrs(project.crs())
    coarse = nodes[-1].layer()
    settings.setExtent(coarse.extent())
    settings.setOutputSize(QSize(10 * coarse.width(), 10 * coarse.height()))
    drawing = QgsMapRendererSequentialJob(settings)
    drawing.start()
    drawing.waitForFinished()
    assert not drawing.errors()
    drawing.renderedImage().save(picture)
    json.dump(layers, sys.stdout)
    del drawing
    project.clear()
    application.exitQgis()


def _looked_at(layer: Any) -> dict[str, Any]:
    from qgis.core import QgsMapLayer, QgsRenderContext

    renderer = layer.renderer().type()
    _, is_loaded = layer.loadNamedStyle(str(Path(layer.source().partition("|")[0]).with_suffix(".qml")))
    colours: Counter[str] = Counter()
    if layer.type() == QgsMapLayer.VectorLayer:
        drawn, context = layer.renderer(), QgsRenderContext()
        drawn.startRender(context, layer.fields())
        for feature in layer.getFeatures():
            symbol = drawn.symbolForFeature(feature, context)
            colours[symbol.color().name() if symbol else "none"] += 1
        drawn.stopRender(context)
    return {
        "valid": [layer.isValid(), layer.crs().isValid(), is_loaded],
        "crs": layer.crs().authid(),
        "renderers": [renderer, layer.renderer().type()],
        "colours": dict(colours),
    }


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
