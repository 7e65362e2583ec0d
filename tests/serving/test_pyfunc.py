"""The MLflow model accepts images in every form, in process and over HTTP, one row for each."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server
from PIL import Image
from support.tiny_tiles import tissue

import oncoshift.serving
from oncoshift.registry.folder import Package, list_requirements, save_folder
from oncoshift.serving.eager import EagerNetwork
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


def predict(model: PyFuncModel, given: Any, **options: Any) -> pd.DataFrame:
    table = model.predict(given, **options)
    assert isinstance(table, pd.DataFrame)
    return table


@pytest.fixture
def expected(package: Package, classifier: TileClassifier, tiles: NDArray[np.uint8]) -> list[float | None]:
    return [
        outcome.probability
        for outcome in TilePredictor(package.config, EagerNetwork(classifier, "cpu")).predict(list(tiles))
    ]


def test_the_loaded_model_says_what_was_trained(
    model: PyFuncModel, tiles: NDArray[np.uint8], expected: list[float]
) -> None:
    table = predict(model, pd.DataFrame({"image": list(tiles)}, index=range(10, 17)))
    assert list(table.columns) == ["label", "probability", "shift", "abstain", "error"]
    assert table["probability"].dtype == np.float64
    assert table["probability"].tolist() == pytest.approx(expected, abs=1e-5)
    assert table.index.tolist() == list(range(10, 17))
    assert table["error"].isna().all()


def test_every_way_of_handing_tiles_in_gives_the_same(
    model: PyFuncModel, tiles: NDArray[np.uint8], expected: list[float]
) -> None:
    plain = model.unwrap_python_model()
    results = [
        predict(model, {"image": list(tiles)}),
        predict(model, {"image": tiles}, params={"batch_size": 2}),
        plain.predict(None, tiles),
        plain.predict(None, list(tiles)),
    ]
    for table in results:
        assert table["probability"].tolist() == pytest.approx(expected, abs=1e-5)
    one = plain.predict(None, tiles[0])
    assert one["probability"].tolist() == pytest.approx(expected[:1], abs=1e-5)


@pytest.fixture
def texts(tiles: NDArray[np.uint8]) -> list[str]:
    """The tiles as REST clients send them."""
    made = []
    for tile in tiles:
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "PNG")
        made.append(base64.b64encode(buffer.getvalue()).decode())
    return made


IN_PROCESS = {
    "DataFrame": lambda texts: pd.DataFrame({"image": texts}),
    "dict of a list": lambda texts: {"image": texts},
    "dict of a tuple": lambda texts: {"image": tuple(texts)},
    "dict of an array": lambda texts: {"image": np.array(texts)},
    "dict of bytes": lambda texts: {"image": [base64.b64decode(text) for text in texts]},
    "list of dicts": lambda texts: [{"image": text} for text in texts],
    "another column of text": lambda texts: {"image": texts, "slide": ["a"] * len(texts)},
    "another column of numbers": lambda texts: {"image": texts, "slide": [1] * len(texts)},
}

OVER_HTTP = {
    "inputs": lambda texts: {"inputs": {"image": texts}},
    "inputs of records": lambda texts: {"inputs": [{"image": text} for text in texts]},
    "instances": lambda texts: {"instances": [{"image": text} for text in texts]},
    "dataframe_split": lambda texts: {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}},
    "dataframe_records": lambda texts: {"dataframe_records": [{"image": text} for text in texts]},
}


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("form", IN_PROCESS)
def test_as_many_rows_come_out_as_images_go_in(
    model: PyFuncModel, texts: list[str], expected: list[float], form: str, count: int
) -> None:
    table = predict(model, IN_PROCESS[form](texts[:count]))
    assert table["probability"].tolist() == pytest.approx(expected[:count], abs=1e-5)
    assert table.index.tolist() == list(range(count))


def post(model: PyFuncModel, body: object) -> list[dict[str, object]]:
    """Return the answer of MLflow's scoring server."""
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(json.dumps(body), "application/json", model, schema)
    assert answer.status == 200
    rows: list[dict[str, object]] = json.loads(answer.response)["predictions"]
    return rows


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("form", OVER_HTTP)
def test_as_many_rows_come_out_over_http(
    model: PyFuncModel, texts: list[str], expected: list[float], form: str, count: int
) -> None:
    rows = post(model, OVER_HTTP[form](texts[:count]))
    assert [row["probability"] for row in rows] == pytest.approx(expected[:count], abs=1e-5)


@pytest.mark.parametrize("form", OVER_HTTP)
def test_an_image_that_is_missing_over_http_has_a_row(model: PyFuncModel, texts: list[str], form: str) -> None:
    rows = post(model, OVER_HTTP[form]([texts[0], None, "bm8=", texts[1]]))
    assert [row["error"] is None for row in rows] == [True, False, False, True]


def test_one_image_in_every_form_is_one_row(model: PyFuncModel, tiles: NDArray[np.uint8], texts: list[str]) -> None:
    nested = tiles[0].tolist()
    for given in ({"image": texts[0]}, pd.DataFrame({"image": [nested]}), {"image": [nested]}):
        assert predict(model, given)["error"].tolist() == [None]
    for body in ({"inputs": {"image": texts[0]}}, {"dataframe_records": [{"image": nested}]}):
        assert [row["error"] for row in post(model, body)] == [None]


def test_an_image_that_mlflow_takes_apart_gets_no_probability(model: PyFuncModel, tiles: NDArray[np.uint8]) -> None:
    """An image in place of a list of images becomes one row for each of its lines."""
    for given in ({"image": tiles[0]}, {"image": tiles[0].tolist()}):
        assert predict(model, given)["probability"].isna().all()


def test_a_list_that_could_be_none_or_one_is_refused(model: PyFuncModel) -> None:
    with pytest.raises(ValueError, match="send a DataFrame without rows"):
        predict(model, {"image": []})


def test_rows_keep_their_index_even_where_it_repeats(model: PyFuncModel, texts: list[str]) -> None:
    given = pd.DataFrame({"image": texts[:3], "slide": 1}, index=["a", "b", "a"])
    assert predict(model, given).index.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    "cell", [None, np.nan, pd.NA, pd.NaT, 3, "", b"", {}, [], ["text", None], [b"bytes"], np.zeros((0, 4, 3), np.uint8)]
)
def test_a_cell_that_is_no_image_costs_no_other_row(model: PyFuncModel, texts: list[str], cell: object) -> None:
    table = predict(model, pd.DataFrame({"image": [texts[0], cell, texts[1]]}))
    assert table["error"].notna().tolist() == [False, True, False]


def test_a_threshold_at_call_time_replaces_the_models_own(model: PyFuncModel) -> None:
    given = {"image": [tissue(0), tissue(1)]}  # as in training, so that the model does not abstain
    assert set(predict(model, given, params={"threshold": 0.0})["label"]) == {"malignant"}
    assert set(predict(model, given, params={"threshold": 1.0})["label"]) == {"benign"}


def test_one_broken_image_keeps_the_other_rows(model: PyFuncModel) -> None:
    table = predict(model, {"image": [tissue(0), b"broken", tissue(1)]})
    assert table["probability"].tolist()[1] is None
    assert table["probability"].notna().tolist() == table["label"].notna().tolist() == [True, False, True]
    assert table["error"].tolist()[1].startswith("6 bytes")


def test_no_rows_give_no_rows(model: PyFuncModel) -> None:
    table = predict(model, pd.DataFrame({"image": []}))
    assert list(table.columns) == ["label", "probability", "shift", "abstain", "error"]
    assert len(table) == 0


def test_a_wrong_column_is_named(model: PyFuncModel) -> None:
    with pytest.raises(mlflow.MlflowException, match="missing inputs \\['image'\\]"):
        predict(model, pd.DataFrame({"picture": [b""]}))


def test_the_input_example_is_served_as_rest_sends_it(model: PyFuncModel, model_folder: Path) -> None:
    sent = json.loads((model_folder / "serving_input_example.json").read_text())["dataframe_split"]
    texts = [row[0] for row in sent["data"]]
    assert base64.b64decode(texts[0]).startswith(b"\x89PNG")
    table = predict(model, pd.DataFrame({"image": texts}))
    pd.testing.assert_frame_equal(table, predict(model, model.input_example))
    assert len(table) == 2


def test_the_folder_holds_no_pickle_and_the_serving_code_alone(model_folder: Path) -> None:
    files = {file.relative_to(model_folder).as_posix() for file in model_folder.rglob("*") if file.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    assert not [file for file in files if Path(file).suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]
    code = {file for file in files if file.startswith("code/")}
    shipped = {f"serving/{file.relative_to(SERVING).as_posix()}" for file in SERVING.rglob("*.py")}
    assert code == {f"code/oncoshift/{name}" for name in {"__init__.py", *shipped}}


def test_requirements_are_pinned_and_few(package: Package, reinhard_package: Package, model_folder: Path) -> None:
    plain, stained = list_requirements(package.config), list_requirements(reinhard_package.config)
    assert (model_folder / "requirements.txt").read_text().split() == plain
    assert {line.split("==")[0] for line in plain} == {
        "mlflow-skinny", "numpy", "onnxruntime", "opencv-python", "pandas", "pillow", "simplejpeg",
    }  # fmt: skip
    assert all("+" not in line and line.split("==")[1][0].isdigit() for line in stained)
    assert [line.split("==")[0] for line in stained if line not in plain] == ["numba"]


def test_mlflow_misses_no_requirement_in_the_projects_own_environment(model_folder: Path) -> None:
    code = "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(model_folder)], capture_output=True, text=True, check=True)
    assert "mismatch" not in done.stderr


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
