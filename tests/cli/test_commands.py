"""Subcommands at work on a small trained network: what they write, what they say, what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import tfqprune as tq
from tests.cli.conftest import Run
from tfqprune import zoo
from tfqprune.cli import app
from tfqprune.data import load
from tfqprune.loading import load_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


K = tf.keras.layers


def cost_of(path: Path) -> dict[str, float]:
    return dict(tq.cost(tf.keras.models.load_model(path)).as_dict())


class TestPrune:
    def test_by_ratio(self, run: Run, model_file: Path, model: tf.keras.Model, tmp_path: Path) -> None:
        answer = run("prune", model_file, "--ratio", 0.25, "-o", tmp_path / "slim.keras", "--json")
        assert (answer.code, answer.err) == (0, "")
        found = answer.json
        plan = tq.PruningPlan.load(tmp_path / "slim.plan.json")
        assert plan.removed == tq.make_plan(model, 0.25).removed
        assert found["removed"] == sum(map(len, plan.removed.values())) > 0
        for name, path in (("dense", model_file), ("slim", tmp_path / "slim.keras")):
            costs = {key: value for key, value in found[name].items() if key != "accuracy"}
            assert costs == pytest.approx(cost_of(path))
        x = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
        slim = tf.keras.models.load_model(tmp_path / "slim.keras")
        np.testing.assert_allclose(slim(x), tq.mask(model, plan)(x), rtol=1e-4, atol=1e-5)

    def test_settings_repeat_the_run(self, run: Run, model_file: Path, tmp_path: Path) -> None:
        first = tmp_path / "first.keras"
        given = "--criterion", "deployed_l1", "--overwrite", "--trust"
        run("prune", model_file, "-r", "stage1_block1_conv1=0.5", *given, "-o", first)
        settings = tomllib.loads((tmp_path / "first.keras.toml").read_text())["prune"]
        assert not {"overwrite", "trust"} & set(settings)  # leave that was given once
        assert (settings["criterion"], settings["ratio"], settings["align"]) == (
            "deployed_l1", ["stage1_block1_conv1=0.5"], 1
        )  # fmt: skip
        again = run("prune", "--config", tmp_path / "first.keras.toml", "-o", tmp_path / "again.keras", "-q")
        assert (again.code, again.out) == (0, "")
        plans = [json.loads((tmp_path / f"{name}.plan.json").read_text()) for name in ("first", "again")]
        assert plans[0] == plans[1]
        assert [len(slots) for slots in plans[0]["removed"].values()] == [4]  # half of 8 filters

    def test_by_budget_and_by_plan_with_data(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        slim, again = tmp_path / "slim.keras", tmp_path / "again.keras"
        answer = run(
            "prune", model_file, "-b", "memory=0.7", "-b", "macs=0.8", "--data", data_file, "-o", slim,
            "--exclude", "stem_conv", "--epochs", 1,
        )  # fmt: skip
        assert answer.code == 0
        before, after = cost_of(model_file), cost_of(slim)
        assert after["memory"] <= 0.7 * before["memory"]
        assert after["macs"] <= 0.8 * before["macs"]
        assert "fine-tuning: 1 epochs" in answer.out
        assert "Accuracy" in answer.out
        plan = tmp_path / "slim.plan.json"
        assert not tq.PruningPlan.load(plan).removed.get("stem_conv")
        assert run("prune", model_file, "--plan", plan, "-o", again).code == 0
        assert cost_of(again) == after

    def test_refused_before_work(self, run: Run, model_file: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("tfqprune.cli.pruning.open_model", None)  # would fail with exit code 3
        slim = tmp_path / "slim.keras"
        for arguments, code, said in [
            (("-r", 0.3, "-b", "memory=0.5"), 2, "Received: --ratio and --budget."),
            ((), 2, "Received: none of them."),
            (("-r", 0.3, "--dead"), 2, "Received: --ratio and --dead."),
            (("--dead", "--align", 8), 2, "Expected no --align with --dead"),
            (("-r", 0.3, "--epochs", 2), 1, "Expected data to fine-tune on: give --data."),
            (("-b", "memory=0.5", "--method", "sensitivity"), 1, "Expected data to judge groups by"),
            (("-r", 0.3, "--data", "none.npz"), 1, "Received: 'none.npz', which does not exist."),
            (("--plan", tmp_path / "none.json"), 1, "none.json', which does not exist."),
            (("--plan", "p.json", "--criterion", "fisher"), 2, "Expected no --criterion with --plan"),
            (("--plan", "p.json", "--align", 8, "--exclude", "a"), 2, "Expected no --align and --exclude with --plan"),
            (("-r", 0.3, "--method", "sensitivity"), 2, "Expected no --method with --ratio"),
            (("-r", 0.3, "--criterion", "redundncy"), 2, "Did you mean 'redundancy'?"),
            (("-r", 0.3, "--learning-rate", 0), 2, "Expected a number above 0. Received: 0."),
        ]:
            answer = run("prune", model_file, "-o", slim, *arguments)
            assert answer.code == code
            assert said in " ".join(answer.err.replace("│", " ").split())
        assert run("prune", model_file, "-r", 0.3, "-o", tmp_path / "slim.tflite").code == 1
        assert run("prune", model_file, "-r", 0.3, "-o", tmp_path / "none" / "slim.keras").code == 1
        assert list(tmp_path.iterdir()) == []
        slim.write_text("mine")
        answer = run("prune", model_file, "-r", 0.3, "-o", slim)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("Error: Expected a new file.")
        assert answer.err.count("\n") == 1
        assert slim.read_text() == "mine"

    def test_dead_channels(self, run: Run, tmp_path: Path) -> None:
        """Two of eight filters are constants: hinted at, taken away, and the results stay."""
        tf.keras.utils.set_random_seed(0)
        layers = [K.Conv2D(8, 3), K.BatchNormalization(name="norm"), K.ReLU(), K.GlobalAveragePooling2D(), K.Dense(3)]
        model = tf.keras.Sequential([K.Input((6, 6, 1)), *layers])
        model.get_layer("norm").gamma.assign([1, 0, 1, 1, 0, 1, 1, 1])
        model.get_layer("norm").beta.assign([0.1, 0.5, 0, 0, -0.5, 0, 0, 0])
        path, slim = tmp_path / "model.keras", tmp_path / "slim.keras"
        model.save(path)
        listed = run("summary", path)
        assert "2 of 8 prunable units are constant behind their batch norm." in " ".join(listed.out.split())
        assert [group["dead"] for group in run("summary", path, "--json").json["groups"]] == [0, 2, 0]
        answer = run("prune", path, "-r", 0.25, "-o", tmp_path / "quarter.keras")
        assert (answer.code, answer.err.count("Warning: 2 of 8 prunable units are constant")) == (0, 1)
        answer = run("prune", path, "--dead", "-o", slim)
        assert (answer.code, answer.err) == (0, "")
        assert "2 of 12 units go, constant behind their batch norm." in answer.out  # one of the image, eight, three
        left = load_model(slim)
        x = np.random.default_rng(0).normal(size=(5, 6, 6, 1)).astype("float32")
        np.testing.assert_allclose(left(x), model(x), rtol=1e-5, atol=1e-6)
        assert left.count_params() == 6 * 9 + 6 + 4 * 6 + 6 * 3 + 3
        assert not (tmp_path / "slim.plan.json").exists()
        assert run("summary", slim, "--json").json["groups"][1]["dead"] == 0

    def test_images_of_any_size(self, run: Run, tmp_path: Path) -> None:
        """What cannot be counted is left empty, when all the work is done."""
        layers = [K.Conv2D(8, 3), K.GlobalAveragePooling2D(), K.Dense(3, activation="softmax")]
        tf.keras.Sequential([K.Input((None, None, 1)), *layers]).save(tmp_path / "free.keras")
        answer = run("prune", tmp_path / "free.keras", "-r", 0.5, "-o", tmp_path / "slim.keras", "--json")
        assert (answer.code, answer.err) == (0, "")
        counted = {"accuracy": None, "params": 4 * 9 + 4 + 4 * 3 + 3, "macs": None, "bops": None, "memory": 4 * 55}
        assert answer.json["slim"] == counted

    def test_data_that_do_not_go_with_the_model(self, run: Run, model_file: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "wide.npz", x=np.zeros((30, 9, 8, 1), np.float32), y=np.arange(30) % 2)
        answer = run("prune", model_file, "-r", 0.3, "-d", tmp_path / "wide.npz", "-o", tmp_path / "slim.keras")
        assert answer.code == 1
        assert "Expected samples of 8x8x1, as the model takes them." in answer.err
        assert not (tmp_path / "slim.keras").exists()


class TestSearch:
    def test_goes_on_interrupted_and_with_more_trials(
        self, run: Run, model_file: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "search"
        command = ["search", model_file, "--data", data_file, "-b", "memory=0.7", "-o", folder, "--json"]
        whole = tq.RatioTuner.run_trial

        def interrupted(self: tq.RatioTuner, trial: object, *arguments: object, **options: object) -> object:
            if trial.trial_id != "0":  # type: ignore[attr-defined]
                raise KeyboardInterrupt
            return whole(self, trial, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(tq.RatioTuner, "run_trial", interrupted)
            assert run(*command, "--trials", 2).code == 130
        kept = json.loads((folder / "trials" / "trials.json").read_text())[0]["value"]
        first = run(*command, "--trials", 2)
        assert first.code == 0
        assert first.json["trials"][0]["value"] == kept
        values = [trial["value"] for trial in first.json["trials"]]
        assert len(values) == 2
        assert first.json["best"]["value"] == max(values)
        before, slim = cost_of(model_file), cost_of(folder / "model.keras")
        assert slim["memory"] <= 0.7 * before["memory"]
        assert {key: first.json["slim"][key] for key in slim} == pytest.approx(slim)
        assert tomllib.loads((folder / "settings.toml").read_text())["search"]["trials"] == 2

        again = run(*command, "--trials", 3)
        assert again.code == 0
        assert [trial["value"] for trial in again.json["trials"]][:2] == values
        assert len(again.json["trials"]) == 3

        refused = run(*command, "--trials", 3)
        assert (refused.code, refused.out) == (1, "")
        assert "holds a finished run" in refused.err
        other = run(*command[:-3], "-b", "macs=0.9", "-o", folder, "--trials", 4)
        assert "one in which budget changed" in other.err

    def test_starts_from_sensitivity(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        model = tf.keras.models.load_model(model_file)
        names = [group.name for group in tq.ChannelGraph(model).prunable]
        curves = tq.SensitivityCurves({}, 1.0, {name: [0.5] for name in names}, {name: [0.5] for name in names})
        curves.values[names[0]] = [1.0]  # costs nothing alone
        command = ["search", model_file, "--data", data_file, "-b", "memory=0.8", "--trials", 2, "--json"]
        command += ["--criterion", "deployed_l1", "--curves", curves.save(tmp_path / "curves.json")]
        answer = run(*command, "-o", tmp_path / "found")
        assert answer.code == 0
        allocator = tq.SensitivityAllocator(tq.Budget(memory=0.8), curves=curves)
        expected = allocator.allocate(model, "deployed_l1").ratios
        assert answer.json["trials"][1]["ratios"] == {name: expected[name] for name in names}
        for extra, said in ((["--sensitivity"], "--sensitivity or --curves"), (["--method", "uniform"], "bayesian")):
            refused = run(*command, *extra, "-o", tmp_path / "other")
            assert refused.code == 2
            assert said in refused.err

    def test_a_mistake_does_not_bind_the_folder(
        self, run: Run, model_file: Path, data_file: Path, tmp_path: Path
    ) -> None:
        command = ["search", model_file, "--data", data_file, "-b", "memory=0.8", "-o", tmp_path / "found"]
        (tmp_path / "text.json").write_text("none")
        other = tq.SensitivityCurves({"model": "another"}, 1.0, {}, {}).save(tmp_path / "other.json")
        for curves, said in (
            (tmp_path / "typo.json", "typo.json', which does not exist."),
            (tmp_path / "text.json", "which holds none"),
            (other, "Received: curves of another one"),
        ):
            answer = run(*command, "--curves", curves)
            assert (answer.code, said in answer.err) == (1, True), answer.err
            assert not (tmp_path / "found").exists()

    def test_other_data_of_the_same_name(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        data, folder = tmp_path / "data.npz", tmp_path / "found"
        with np.load(data_file) as arrays:
            content = dict(arrays)
        np.savez(data, **content)
        command = ["search", model_file, "--data", data, "-b", "memory=0.8", "--method", "uniform", "-o", folder]
        command += ["--criterion", "deployed_l1"]
        assert run(*command).code == 0
        state = folder / "run.json"
        state.write_text(state.read_text().replace("finished", "running"))
        np.savez(data, **{**content, "y_train": content["y_train"][::-1]})
        answer = run(*command)
        assert answer.code == 1
        assert "one in which samples changed" in answer.err

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["uniform", "sensitivity", "slimming"])
    def test_methods(self, method: str, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        answer = run(
            "search", model_file, "--data", data_file, "-b", "memory=0.8", "-o", tmp_path / "s", "--method", method,
            "--criterion", "deployed_l1",
        )  # fmt: skip
        assert answer.code == 0
        assert cost_of(tmp_path / "s" / "model.keras")["memory"] <= 0.8 * cost_of(model_file)["memory"]
        assert (tmp_path / "s" / "curves.json").exists() == (method == "sensitivity")

    def test_budget_that_cannot_be_met(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        answer = run("search", model_file, "--data", data_file, "-b", "memory=0.01", "-o", tmp_path / "s")
        assert answer.code == 1
        assert "is the smallest reachable" in answer.err
        assert not (tmp_path / "s").exists()


def test_train_prune_knows_other_data_of_the_same_name(
    run: Run, model_file: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tq.HolisticAllocator, "allocate", interrupted)
    with np.load(data_file) as arrays:
        content = dict(arrays)
    np.savez(tmp_path / "data.npz", **content)
    command = ["train-prune", model_file, "--data", tmp_path / "data.npz", "-b", "params=0.6", "-o", tmp_path / "run"]
    assert run(*command).code == run(*command).code == 130
    np.savez(tmp_path / "data.npz", **{**content, "y_test": content["y_test"][::-1]})
    answer = run(*command)
    assert answer.code == 1
    assert "one in which samples changed" in answer.err


@pytest.mark.slow
def test_train_prune(run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    command = ["train-prune", model_file, "--data", data_file, "-b", "params=0.6", "-b", "macs=0.7", "-o", folder]
    answer = run(*command, "--epochs", 4, "--batch-size", 10, "--json")
    assert answer.code == 0
    before, slim = cost_of(model_file), cost_of(folder / "model.keras")
    assert slim["params"] <= 0.6 * before["params"]
    assert slim["macs"] <= 0.7 * before["macs"]
    assert answer.json["slim"]["accuracy"] > 0.2  # of ten classes; the figure is that of the file
    test = load(str(data_file)).test
    answers = tf.keras.models.load_model(folder / "model.keras").predict(test.x, verbose=0).argmax(axis=1)
    assert answer.json["slim"]["accuracy"] == pytest.approx((answers == test.y).mean())
    refused = run(*command, "--epochs", 4, "--batch-size", 10)
    assert (refused.code, "holds a finished run" in refused.err) == (1, True)
    assert run(*command, "--share", 1.5).code == 2


def test_train_prune_stopped_before_its_model_is_saved(
    run: Run, model_file: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is done: the same command saves what came out of it, and no epoch is trained again."""

    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "trained"
    command = ["train-prune", model_file, "--data", data_file, "-b", "params=0.7", "--epochs", 2, "-o", folder]
    with monkeypatch.context() as patch:
        patch.setattr("tfqprune.recovery.reestimate_batch_norms", stopped)
        assert run(*command).code == 130
    assert not (folder / "model.keras").exists()
    steps = []
    with monkeypatch.context() as patch:
        whole = tq.HolisticPruning.train_step
        patch.setattr(tq.HolisticPruning, "train_step", lambda self, data: steps.append(1) or whole(self, data))
        assert run(*command).code == 0
    assert steps == []
    assert cost_of(folder / "model.keras")["params"] <= 0.7 * cost_of(model_file)["params"]
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "settings.toml", "steps", "model.keras", "plan.json"
    }  # fmt: skip
    other = tmp_path / "other"
    assert run(*command[:-1], other).code == 0  # in one go
    assert tq.PruningPlan.load(other / "plan.json").sizes == tq.PruningPlan.load(folder / "plan.json").sizes
    (folder / "mine.txt").write_text("mine")
    refused = run(*["train-prune", folder / "model.keras", *command[2:]], "--overwrite")
    assert (refused.code, "without anything that is still to be read" in refused.err) == (1, True)
    assert run(*command, "--overwrite").code == 0
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def file(home: Path, model_file: Path, data_file: Path) -> Path:
    path = home / "model.tflite"
    run = CliRunner().invoke(app, ["export", str(model_file), "-o", str(path), "-d", str(data_file), "--json"])
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    assert found["bytes"] == path.stat().st_size == sum(found["by_kind"].values())
    assert found["format"] == "packed"
    assert found["agreement"]["top1"] >= 0.95
    return path


class TestFiles:
    def test_export_refuses(self, file: Path, run: Run, model_file: Path, tmp_path: Path) -> None:
        content = file.read_bytes()
        answer = run("export", model_file, "-o", file)
        assert (answer.code, answer.err.startswith("Error: Expected a new file.")) == (1, True)
        assert file.read_bytes() == content
        answer = run("export", model_file, "-o", tmp_path / "m.tflite", "--format", "packd")
        assert (answer.code, "Did you mean 'packed'?" in answer.err) == (2, True)
        answer = run("export", model_file, "-o", tmp_path / "m.tflite", "--format", "binary")
        assert (answer.code, answer.err.startswith("Error: Expected")) == (1, True)

    def test_verify(self, file: Path, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        answer = run("verify", model_file, file, "--data", data_file, "--json")
        assert (answer.code, answer.json["agrees"], answer.json["generated"]) == (0, True, False)
        assert answer.json["samples"] == 100
        other = tmp_path / "other.keras"
        tf.keras.utils.set_random_seed(1)
        zoo.resnet(8, precision=2, input_shape=(8, 8, 1), width=0.5).save(other)
        answer = run("verify", other, file)
        assert answer.code == 1
        assert "does NOT agree" in answer.out
        assert run("verify", other, file, "--at-least", 0).code == 0

    def test_verify_single_numbers(self, run: Run, tmp_path: Path) -> None:
        inputs = tf.keras.Input((4,))
        model = tf.keras.Model(inputs, tf.keras.layers.Dense(1, name="last")(inputs))
        model.save(tmp_path / "model.keras")
        assert run("export", tmp_path / "model.keras", "-o", tmp_path / "m.tflite").code == 0
        answer = run("verify", tmp_path / "model.keras", tmp_path / "m.tflite")
        assert (answer.code, "agrees" in answer.out) == (0, True)
        model.set_weights([-value for value in model.get_weights()])
        model.save(tmp_path / "other.keras")
        answer = run("verify", tmp_path / "other.keras", tmp_path / "m.tflite")
        assert (answer.code, "does NOT agree" in answer.out, "single numbers" in answer.out) == (1, True, True)

    def test_benchmark(self, file: Path, run: Run) -> None:
        answer = run("benchmark", file, "--runs", 3, "--json")
        assert answer.code == 0
        assert answer.json["latency_ms"] > 0
        assert answer.json["file_bytes"] == file.stat().st_size
        assert run("benchmark", file, "--device", "phone").code == 2

    def test_size(self, file: Path, run: Run, model_file: Path) -> None:
        answer = run("size", file, "--model", model_file, "--json")
        assert answer.code == 0
        assert answer.json["total"] == file.stat().st_size == sum(answer.json["by_kind"].values())
        assert "stage1_block1_conv1" in answer.json["by_layer"]
        table = run("size", file)
        assert "weights" in table.out
        assert "of the floor" in table.out

    def test_files_that_are_none(self, run: Run, model_file: Path, tmp_path: Path) -> None:
        for command in (["verify", model_file], ["benchmark"], ["size"]):
            answer = run(*command, tmp_path / "none.tflite")
            assert (answer.code, answer.out) == (1, "")
            assert answer.err.startswith("Error: Expected a .tflite file. Received: '")
        broken = tmp_path / "broken.tflite"
        broken.write_bytes(b"TFL3")
        answer = run("size", broken)
        assert (answer.code, answer.err.count("\n")) == (1, 1)


class TestCompress:
    def test_from_settings_to_report(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        settings = tmp_path / "settings.toml"
        settings.write_text(
            f"data = '{data_file}'\n[compress]\nmodel = '{model_file}'\noutput = '{folder}'\nmethod = 'uniform'\n"
            "epochs = 3\n[compress.budget]\nmemory = 0.7\n[search]\ntrials = 3\n"
        )
        answer = run("compress", "--config", settings, "--epochs", 1, "--json")
        assert answer.code == 0
        variants = {variant["name"]: variant for variant in answer.json["variants"]}
        assert list(variants) == ["dense", "uniform"]
        assert variants["uniform"]["memory"] <= 0.7 * variants["dense"]["memory"]
        assert answer.json["best"] == "uniform"
        saved = tomllib.loads((folder / "settings.toml").read_text())["compress"]
        assert (saved["epochs"], saved["method"], saved["budget"]) == (1, ["uniform"], ["memory=0.7"])

        page = folder / "report.html"
        text = page.read_text()
        page.unlink()
        again = run("report", folder)
        assert again.code == 0
        assert "uniform" in again.out
        # Drawn again from the same figures; only ids of the drawings may differ.
        assert abs(len(page.read_text()) - len(text)) < 0.01 * len(text)

        refused = run("compress", "--config", settings, "--epochs", 1)
        assert (refused.code, "holds a finished run" in refused.err) == (1, True)

    def test_folder_of_others(self, run: Run, model_file: Path, data_file: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").touch()
        answer = run("compress", model_file, "-d", data_file, "-b", "memory=0.7", "-o", tmp_path, "--overwrite")
        assert answer.code == 1
        assert "holds other files" in answer.err
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_report_of_nothing(self, run: Run, tmp_path: Path) -> None:
        answer = run("report", tmp_path)
        assert (answer.code, answer.err.startswith("Error: Expected a report.json")) == (1, True)
