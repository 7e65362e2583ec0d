"""The table of methods drives everything else: a new method is one file and two edits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

import oncoshift
from oncoshift.methods.alignment import Term
from oncoshift.methods.base import Method
from oncoshift.methods.registry import METHODS
from oncoshift.settings import RetrainSettings, Settings, TrainSettings
from oncoshift.settings.methods import MethodSections


def test_settings_allow_every_method_and_as_control_those_without_the_target() -> None:
    assert TrainSettings.model_json_schema()["properties"]["method"]["enum"] == list(METHODS)
    control = RetrainSettings.model_json_schema()["properties"]["control"]["enum"]
    assert control == ["erm", "single", "stain_aug", "ensemble"]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_names_what_there_is(name: str) -> None:
    row = METHODS[name]
    assert row.made_by or row.member or len(row.terms) > 1
    if row.made_by:
        assert issubclass(resolve_name(row.made_by), Term if row.terms else Method)
    assert row.member is None or METHODS[row.member].one_organ
    assert set(row.also_reads) <= Settings.model_fields.keys()
    for term in row.terms:
        assert METHODS[term].terms == (term,)
        assert term in MethodSections.model_fields


def test_every_section_of_a_method_has_its_name() -> None:
    assert MethodSections.model_fields.keys() <= METHODS.keys()


def test_settings_know_the_names_without_torch() -> None:
    code = "import sys, oncoshift.settings; print({'torch', 'numpy', 'optuna'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


CORAL = '''
"""Deep CORAL (Sun and Saenko 2016): as much as the covariances of source and target features differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncoshift.methods.alignment import Step, Term

if TYPE_CHECKING:
    from torch import Tensor

    from oncoshift.settings.methods import CoralSettings


class Coral(Term):
    """The distance of the two covariances, weighted."""

    settings: CoralSettings

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term.forward`."""
        source, target = step.z[: step.sources], step.z[step.sources :]
        distance = (source.T.cov() - target.T.cov()).square().mean()
        return self.settings.weight * distance, {"covariance_distance": distance.detach()}
'''
SECTION = '''
class CoralSettings(Section):
    """Deep CORAL."""

    weight: Annotated[float, Field(gt=0), Range(0.1, 10.0, log=True)] = 1.0


class MethodSections(Section):
'''
ROW = '    "coral": MethodRow("oncoshift.methods.coral:Coral", terms=("coral",)),\n'
USE = """
import json, torch
from oncoshift.errors import SettingsError
from oncoshift.methods.base import Batch
from oncoshift.methods.factory import build_method, select_method_settings
from oncoshift.settings import Settings, replace_values
from oncoshift.tuning.space import select_parameters
settings = replace_values(Settings(), {"train.method": "coral", "coral.weight": 2.0, "tune.parameters": ["all"]})
method = build_method(settings)
tiles, organs = torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 1])
loss, figures = method(Batch(tiles, organs, organs, tiles.clone()), 0, 0.0)
loss.backward()
try:
    replace_values(settings, {"train.method": "corel"})
except SettingsError as error:
    message = str(error)
read = select_method_settings(settings)
tuned = [key for key in select_parameters(("all",), {"model", "train", *read}, settings)[0] if key.startswith("coral")]
print(json.dumps([sorted(figures), read, tuned, message]))
"""


def test_a_new_method_is_a_file_and_two_edits(tmp_path: Path) -> None:
    package = tmp_path / "oncoshift"
    shutil.copytree(Path(oncoshift.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "methods" / "coral.py").write_text(CORAL)
    sections, rows = package / "settings" / "methods.py", package / "methods" / "registry.py"
    field = "    coral: CoralSettings = CoralSettings()\n"
    sections.write_text(sections.read_text().replace("\nclass MethodSections(Section):\n", SECTION) + field)
    before, last, after = rows.read_text().rpartition('    "dann_mcc"')
    rows.write_text(before + ROW + last + after)

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    figures, read, tuned, message = json.loads(run.stdout)
    assert "covariance_distance" in figures
    assert read == {"coral": {"weight": 2.0}}
    assert tuned == ["coral.weight"]
    assert message.startswith("train.method: 'corel' is not allowed; input should be 'erm', 'single'")
    assert "'coral'" in message
