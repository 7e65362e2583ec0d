from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

import oncoshift.serving
from oncoshift.registry.folder import Package, requirements, save_folder
from oncoshift.serving.predictor import TilePredictor

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from numpy.typing import NDArray

    from oncoshift.serving.classifier import TileClassifier


SERVING = Path(oncoshift.serving.__path__[0])


@pytest.fixture(scope="module")
def model(model_folder: Path) -> PyFuncModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.setattr(sys, "path", list(sys.path))
        return mlflow.pyfunc.load_model(str(model_folder))


@pytest.fixture
def expected(package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8]) -> list[float | None]:
    return [outcome.probability for outcome in TilePredictor(package.config, classifier).predict(list(tiles))]


def test_the_loaded_model_says_what_was_trained(
    model: PyFuncModel, tiles: NDArray[np.uint8], expected: list[float]
) -> None:
    table = model.predict(pd.DataFrame({"image": list(tiles)}, index=range(10, 17)))
    assert list(table.columns) == ["probability", "label", "error"]
    assert table["probability"].dtype == np.float64
    assert table["probability"].tolist() == pytest.approx(expected, abs=1e-6)
    assert table.index.tolist() == list(range(10, 17))
    assert table["error"].isna().all()


def test_every_way_of_handing_tiles_in_gives_the_same(
    model: PyFuncModel, tiles: NDArray[np.uint8], expected: list[float]
) -> None:
    plain = model.unwrap_python_model()
    results = [
        model.predict({"image": list(tiles)}),
        model.predict({"image": tiles}, params={"batch_size": 2}),
        plain.predict(None, tiles),
        plain.predict(None, list(tiles)),
    ]
    for table in results:
        assert table["probability"].tolist() == pytest.approx(expected, abs=1e-6)
    one = plain.predict(None, tiles[0])
    assert one["probability"].tolist() == pytest.approx(expected[:1], abs=1e-6)


def test_one_broken_image_keeps_the_other_rows(model: PyFuncModel, tiles: NDArray[np.uint8]) -> None:
    table = model.predict({"image": [tiles[0], b"broken", tiles[1]]})
    assert table["probability"].tolist()[1] is None
    assert table["probability"].notna().tolist() == table["label"].notna().tolist() == [True, False, True]
    assert table["error"].tolist()[1].startswith("6 bytes")


def test_no_rows_give_no_rows(model: PyFuncModel) -> None:
    table = model.predict(pd.DataFrame({"image": []}))
    assert list(table.columns) == ["probability", "label", "error"]
    assert len(table) == 0


def test_a_wrong_column_is_named(model: PyFuncModel) -> None:
    with pytest.raises(mlflow.MlflowException, match="missing inputs \\['image'\\]"):
        model.predict(pd.DataFrame({"picture": [b""]}))


def test_the_input_example_is_served_as_rest_sends_it(model: PyFuncModel, model_folder: Path) -> None:
    sent = json.loads((model_folder / "serving_input_example.json").read_text())["dataframe_split"]
    texts = [row[0] for row in sent["data"]]
    assert base64.b64decode(texts[0]).startswith(b"\x89PNG")
    table = model.predict(pd.DataFrame({"image": texts}))
    pd.testing.assert_frame_equal(table, model.predict(model.input_example))
    assert len(table) == 2


def test_the_folder_holds_no_pickle_and_the_serving_code_alone(model_folder: Path) -> None:
    files = {file.relative_to(model_folder).as_posix() for file in model_folder.rglob("*") if file.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    assert not [file for file in files if Path(file).suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]
    code = {file for file in files if file.startswith("code/")}
    shipped = (
        "__init__", "serving/__init__", "serving/classifier", "serving/colour", "serving/images", "serving/limits",
        "serving/predictor",
    )  # fmt: skip
    stain = {file.relative_to(SERVING).with_suffix("").as_posix() for file in (SERVING / "stain").glob("*.py")}
    names = (*shipped, "serving/pyfunc", *(f"serving/{name}" for name in stain))
    assert code == {f"code/oncoshift/{name}.py" for name in names}


def test_requirements_are_pinned_and_few(package: Package, reinhard_package: Package, model_folder: Path) -> None:
    plain, stained = requirements(package.config), requirements(reinhard_package.config)
    assert (model_folder / "requirements.txt").read_text().split() == plain
    assert {line.split("==")[0] for line in plain} == {
        "mlflow", "torch", "torchvision", "safetensors", "numpy", "pandas", "pillow", "simplejpeg",
        "opencv-python-headless",
    }  # fmt: skip
    assert all("+" not in line and line.split("==")[1][0].isdigit() for line in stained)
    assert [line.split("==")[0] for line in stained if line not in plain] == ["numba"]


def test_a_process_that_loaded_a_model_can_still_import_the_rest(model_folder: Path) -> None:
    code = (
        "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])\n"
        "import oncoshift.serving.predictor as served; print(served.__file__)\n"
        "import oncoshift.settings; print(oncoshift.settings.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model_folder)], capture_output=True, text=True, check=True)
    served, settings = done.stdout.split()
    assert Path(served).is_relative_to(model_folder)
    assert not Path(settings).is_relative_to(model_folder)


def test_saving_over_something_is_refused(package: Package, model_folder: Path) -> None:
    with pytest.raises(mlflow.MlflowException, match="already exists"):
        save_folder(package, model_folder)
