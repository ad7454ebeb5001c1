"""The command line: what it prints, what it refuses and how."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from astro_cli.commands.doctor import doctor
from astro_cli.commands.recipe import recipe_app
from astro_cli.config import toml
from astro_cli.inspection.machine import OPTIONAL
from astro_cli.recipe import load_recipe
from astro_cli.training import footprint
from astro_cli.zoo.sizes import WAN_1_3B_PARAMETERS

RL = ("rl", "--recipe", "astrolabe_causal_shapes")
HEAVY = ("torch", "numpy", "scipy", "pandas", "diffusers", "peft", "accelerate", "transformers", "matplotlib")


@pytest.fixture
def refused(astro, tmp_path):
    """Runs `astro ...`, which must be refused as usage, cleanly and leaving nothing; returns the message."""

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, out, err = astro(*arguments)
        assert code == 2, err
        assert err.startswith("error: ")
        assert "Traceback" not in out + err
        assert out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def recipe(*arguments: str):
    return CliRunner().invoke(recipe_app, list(arguments))


# --- starting up


def imported(arguments: list[str], names: tuple[str, ...]) -> tuple[int, list[str]]:
    """Exit code of `astro ARGUMENTS` in a process of its own, and which of these modules it imported."""
    code = (
        f"import sys; sys.argv = {['astro', *arguments]!r}\nfrom astro_cli.__main__ import main\n"
        f"try:\n    main()\nfinally:\n    print('imported:', *[name for name in {names!r} if name in "
        "sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    return done.returncode, done.stderr.strip().splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["recipe", "list"], 0),
        (["rl", "--help"], 0),
        (["eval", "--help"], 0),
        (["rl", "--recipe", "no_such_recipe"], 2),
        (["recipe", "show", "no_such_recipe"], 2),
        (["rl", "--recipe", "teacher_shapes"], 2),
        (["sample", "--no-such-option"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_nothing_heavy_is_imported(arguments, code):
    assert imported(arguments, HEAVY) == (code, [])


def test_help_builds_no_configuration():
    """pydantic and the recipe's classes take half as long as the rest of the start."""
    assert imported(["--help"], ("pydantic", "astro_cli.recipe", "eval.suites.suite")) == (0, [])


def test_help_names_the_commands(astro):
    code, out, _ = astro("--help")
    assert code == 0
    for command in ("pretrain", "distill", "rl"):
        assert command in out
        assert f"Example: astro {command} --recipe" in astro(command, "--help")[1]


# --- bad input


def test_an_unknown_recipe_is_refused_with_the_nearest(refused):
    message = refused("rl", "--recipe", "astrolabe_casual_shapes")
    assert "astrolabe_casual_shapes: no such recipe" in message
    assert "did you mean 'astrolabe_causal_shapes.toml'?" in message


def test_an_unknown_key_names_the_file_that_set_it(refused, tmp_path):
    (tmp_path / "middle.toml").write_text(
        'extends = "astrolabe_causal_shapes"\n[stages.nft.optim.student]\nwarm_up = 3\n'
    )
    (tmp_path / "mine.toml").write_text('extends = "middle.toml"\nname = "mine"\n')
    message = refused("rl", "--recipe", "mine.toml")
    assert (
        message == "error: middle.toml: stages.nft.optim.student.warm_up: unknown key\nhint: did you mean 'warmup'?\n"
    )


@pytest.mark.parametrize(
    ("override", "key", "what"),
    [
        ("modl.dim=3", "modl", "did you mean 'model'?"),
        ("stages.nft.stps=3", "stages.nft.stps", "did you mean 'steps'?"),
        ("stages.nft.optim.studnt.lr=1", "stages.nft.optim.studnt", "did you mean 'student'?"),
        ("stages.nft.objective.kind=nfft", "stages.nft.objective.kind", "found 'nfft', did you mean 'nft'?"),
        ("stages.nft.objective.betta=1", "stages.nft.objective.betta", "unknown key, did you mean 'beta'?"),
        ("stages.nft.objective.beta=-1", "stages.nft.objective.beta", "found -1, expected greater than 0"),
        (
            "stages.nft.experience.advantage.kind=goup",
            "stages.nft.experience.advantage.kind",
            "found 'goup', did you mean 'group'?",
        ),
        (
            "stages.nft.experience.advantage.scal=1",
            "stages.nft.experience.advantage.scal",
            "unknown key, did you mean 'scale'?",
        ),
        (
            "stages.nft.experience.advantage.scale=std",
            "stages.nft.experience.advantage.scale",
            "expected 'none', 'global', 'released' or 'group'",
        ),
        ("order=['nftt']", "order", "no stage 'nftt', did you mean 'nft'?"),
        ("order=[]", "order", "found [], expected at least one value"),
        ("stages.nft.steps=many", "stages.nft.steps", "found 'many', expected an integer"),
        ("stages.nft.steps=2.5", "stages.nft.steps", "found 2.5, expected an integer"),
        ("seed='1'", "seed", "found '1', expected an integer"),
        ("seed=true", "seed", "found True, expected an integer"),
        ("stages.nft.objective.beta=true", "stages.nft.objective.beta", "found True, expected a number"),
        ("stages.nft.optim.student.lr=nan", "stages.nft.optim.student.lr", "found nan, expected"),
        ("sampler.steps=[1000, 'x']", "sampler.steps.1", "found 'x', expected a number"),
        ("sampler.steps=0.5", "sampler.steps", "found 0.5, expected an array"),
        ("lora=32", "lora", "found 32, expected a table"),
        ("backbone=wann", "backbone", "found 'wann', expected 'shapes' or 'wan'"),
        ("video.frames=10", "video.frames", "found 10, expected a multiple of video.block (3)"),
        ("cache.window=2", "cache.window", "found 2, expected at least 3 (sink 0 + block 3)"),
    ],
)
def test_a_bad_override_is_refused_with_key_and_reason(refused, override, key, what):
    message = refused(*RL, "--set", override)
    assert message.startswith(f"error: --set {override}: {key}: ")
    assert what in message


def test_a_window_must_hold_sink_and_block(refused):
    message = refused("rl", "--recipe", "astrolabe_longlive_shapes", "--set", "cache.window=5")
    assert "cache.window: found 5, expected at least 6 (sink 3 + block 3)" in message


def test_a_wrong_value_in_a_file_names_the_file(refused, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "astrolabe_causal_shapes"\n[lora]\nrank = "big"\n')
    error, hint, _ = refused("rl", "--recipe", "mine.toml").split("\n")
    assert error == "error: mine.toml: lora.rank: found 'big', expected an integer"
    assert hint.startswith("hint: astro recipe show mine.toml --origins ")


def test_a_missing_key_says_what_to_do(refused, tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "base/shapes.toml"\ncommand = "rl"\nname = "mine"\norder = ["a"]\n')
    message = refused("rl", "--recipe", "mine.toml")
    assert message.startswith("error: mine.toml: stages: missing\nhint: ")


def test_a_recipe_for_another_command_says_which(refused):
    message = refused("pretrain", "--recipe", "astrolabe_causal_shapes")
    assert "command: found 'rl', this is `astro pretrain`" in message
    assert "hint: run it with `astro rl --recipe astrolabe_causal_shapes`" in message


@pytest.mark.parametrize("found", ["rll", "3"])
def test_a_command_that_is_none_is_not_suggested(refused, found):
    message = refused(*RL, "--set", f"command={found}")
    assert "command: found" in message
    assert "run it with" not in message
    assert "did you mean" not in message


def test_a_base_is_no_recipe(refused):
    message = refused("rl", "--recipe", "base/shapes")
    assert "missing\nhint: add it" in message


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1"])
def test_a_malformed_set_is_refused(refused, override):
    assert refused(*RL, "--set", override).startswith(f"error: --set: {override}: expected KEY=VALUE\nhint: ")


# --- dry run


def test_a_dry_run_prints_recipe_counts_and_memory_and_stops(astro, tmp_path):
    code, out, err = astro(*RL, "--dry-run", "--seed", "5", "--steps", "2", "--set", "lora.rank=8")
    assert code == 0
    wanted = load_recipe("astrolabe_causal_shapes", ["seed=5", "stages.nft.steps=2", "lora.rank=8"])
    assert tomllib.loads(out) == wanted.model_dump(mode="json", exclude_none=True)
    assert "student" in err
    assert "trainable" in err
    assert "expected memory" in err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_sums_the_memory_and_compares_it_with_the_devices(astro, monkeypatch):
    monkeypatch.setattr(footprint.memory, "total", lambda: 3 * 2**30)
    err = astro("rl", "--recipe", "astrolabe_causal", "--dry-run", "--set", "runtime.device=cpu")[2]
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in err.splitlines() if "│" in line]
    parts = {row[0]: float(row[1]) for row in rows if len(row) == 2}
    total, there = parts.pop("sum, without activations"), parts.pop("there is, main memory")
    assert there == 3
    assert total == pytest.approx(sum(parts.values()), abs=0.01 * len(parts))
    assert f"warning: {total:.1f} GiB are more than the 3.0 GiB of this device" in err
    assert "warning" not in astro(*RL, "--dry-run", "--set", "runtime.device=cpu")[2]


def test_a_dry_run_counts_the_adapters(astro):
    def student(rank: int) -> tuple[int, int]:
        err = astro(*RL, "--dry-run", "--set", f"lora.rank={rank}")[2]
        row = next(line for line in err.splitlines() if "student" in line)
        trainable, total, memory = (cell.strip() for cell in row.strip("│ ").split("│")[1:])
        assert re.fullmatch(r"[\d.]+ GiB", memory)
        return int(trainable.replace(",", "")), int(total.replace(",", ""))

    (small, small_total), (large, large_total) = student(8), student(16)
    assert large == 2 * small > 0
    assert large_total - small_total == 3 * (large - small)  # default, old and ref


# --- recipe


def test_recipe_list_names_every_shipped_recipe():
    rows = json.loads(recipe("list", "--json").stdout)
    assert [row["name"] for row in rows] == [path.stem for path in toml.list_recipes()]
    row = next(row for row in rows if row["name"] == "astrolabe_longlive")
    assert row == {
        "name": "astrolabe_longlive",
        "command": "rl",
        "backbone": "wan",
        "paper": "arXiv:2603.17051",
        "description": "Astrolabe on LongLive, Wan 2.1 1.3B.",
        "file": "recipes/astrolabe/astrolabe_longlive.toml",
    }
    assert len(recipe("list").stdout.splitlines()) == len(rows)


@pytest.mark.parametrize("path", toml.list_recipes(), ids=lambda path: path.stem)
def test_recipe_show_prints_the_same_recipe(path, tmp_path):
    for flags in ([], ["--origins"]):
        shown = tmp_path / "shown.toml"
        shown.write_text(recipe("show", str(path), *flags).stdout)
        assert load_recipe(str(shown)) == load_recipe(str(path))


def test_recipe_show_gives_origins():
    shown = recipe("show", "astrolabe_longlive", "--origins", "--set", "lora.rank=4").stdout.splitlines()
    assert "rank = 4  # --set lora.rank=4" in shown
    assert "alpha = 256.0  # recipes/base/astrolabe.toml" in shown
    assert "window = 15  # recipes/astrolabe/astrolabe_longlive.toml" in shown
    assert "relative = false  # default" in shown
    with_origins = json.loads(recipe("show", "astrolabe_longlive", "--origins", "--json").stdout)
    assert with_origins["origins"]["model.dim"] == "recipes/base/wan_1.3b.toml"


def test_an_origin_of_several_lines_is_one_comment():
    override = 'stages.nft.data.prompts="""a\nb"""'
    shown = recipe("show", "astrolabe_causal_shapes", "--origins", "--set", override).stdout
    assert tomllib.loads(shown)["stages"]["nft"]["data"]["prompts"] == "a\nb"
    assert 'prompts = "a\\nb"  # --set stages.nft.data.prompts="""a\\u000ab"""' in shown.splitlines()


def test_recipe_show_quotes_what_needs_it(tmp_path):
    text = tmp_path / "odd.toml"
    prompts = 'a "b"\\c\n\x7fé'
    quoted = json.dumps(prompts).replace("\x7f", "\\u007f")
    stage = (
        '[stages."odd-key"]\nsteps = 1\nbatch = 1\nobjective = { kind = "flow_matching" }\noptim.student = { '
        "lr = 1.0 }\n"
    )
    text.write_text(f'extends = "astrolabe_causal_shapes"\n[stages.nft.data]\nprompts = {quoted}\n{stage}')
    shown = tomllib.loads(recipe("show", str(text)).stdout)
    assert shown["stages"]["nft"]["data"]["prompts"] == prompts
    assert shown["stages"]["odd-key"]["steps"] == 1


def test_recipe_check_passes_and_fails():
    good = recipe("check", "--all")
    assert good.exit_code == 0
    assert len(good.stdout.splitlines()) == len(toml.list_recipes())
    mixed = recipe("check", "astrolabe_causal", "nowhere", "teacher_shapes")
    assert mixed.exit_code == 2
    assert mixed.stdout.splitlines() == ["ok  astrolabe_causal", "ok  teacher_shapes"]
    assert mixed.stderr.startswith("error: nowhere: no such recipe")


def test_recipe_check_wants_a_name():
    assert "--all" in str(recipe("check").exception)


def test_recipe_diff_shows_what_differs_and_not_the_name():
    changes = json.loads(recipe("diff", "astrolabe_causal", "astrolabe_longlive", "--json").stdout)
    assert {change["key"]: (change.get("a"), change.get("b")) for change in changes} == {
        "base.student": ("chunkwise/causal_forcing.safetensors", "longlive-merged"),
        "cache.window": (None, 15),
        "cache.sink": (0, 3),
    }
    lines = recipe("diff", "astrolabe_causal", "astrolabe_longlive").stdout.splitlines()
    assert lines[0].split() == ["key", "astrolabe_causal", "astrolabe_longlive"]
    assert ["cache.window", "-", "15"] in [line.split() for line in lines]


def test_recipe_diff_of_equals_is_empty():
    same = recipe("diff", "astrolabe_causal", "astrolabe_causal")
    assert (same.exit_code, same.stdout) == (0, "")


# --- doctor


@pytest.fixture
def doctor_json(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    app = typer.Typer()
    app.command()(doctor)

    def run() -> dict:
        result = CliRunner().invoke(app, ["--json"])
        assert result.exit_code == 0
        return json.loads(result.stdout)

    return run


def test_doctor_reports_this_machine(doctor_json):
    report = doctor_json()
    assert sorted(report) == ["bases", "checkpoints", "devices", "machine", "note", "optional", "versions"]
    assert report["versions"]["torch"]
    assert report["devices"][0]["kind"] == "cpu"
    assert all(
        report["machine"][key] > 0
        for key in ("cores", "threads", "ram_total_gib", "ram_available_gib", "disk_free_gib")
    )
    assert [part["key"] for part in report["optional"]] == [part.key for part in OPTIONAL]
    assert all(part["enables"] for part in report["optional"])


def test_doctor_prints_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    doctor()
    out = capsys.readouterr().out
    for word in (
        "torch",
        "threads, embedded world",
        "packaged bases",
        "Self-Forcing student",
        "recipe astrolabe_self_forcing",
    ):
        assert word in out


def write_header(path: Path, numbers: int, size: int | None = None) -> None:
    """A safetensors file of one tensor of zeros, which take no place on the disk; `size`: of the tensor's bytes."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (numbers if size is None else size))


def test_doctor_reads_sizes_and_headers(doctor_json, tmp_path):
    def longlive() -> dict:
        return next(part for part in doctor_json()["optional"] if part["key"] == "longlive")

    file = tmp_path / "longlive-merged" / "diffusion_pytorch_model.safetensors"
    write_header(file, WAN_1_3B_PARAMETERS)
    assert longlive()["found"]
    write_header(file, WAN_1_3B_PARAMETERS, size=1000)
    assert not longlive()["found"]
    assert longlive()["missing"].startswith(f"{file}: ")
    write_header(file, 12)
    assert longlive()["missing"] == f"{file}: 12 parameters, expected at least {WAN_1_3B_PARAMETERS:,}"
    file.write_bytes(b"")
    assert not longlive()["found"]


def test_an_index_without_its_shards_is_a_fault(doctor_json, tmp_path):
    folder = tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "transformer"
    first = "diffusion_pytorch_model-00001-of-00002.safetensors"
    write_header(folder / first, WAN_1_3B_PARAMETERS)
    places = {"x": first, "y": first.replace("00001", "00002")}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    part = next(part for part in doctor_json()["optional"] if part["key"] == "wan_transformer")
    assert not part["found"]
    assert "1 of 2 shards" in part["missing"]


def test_a_released_size_is_that_of_the_recipe(astro):
    err = astro("rl", "--recipe", "astrolabe_causal", "--dry-run", "--set", "lora.rank=1")[2]
    cells = next(line for line in err.splitlines() if "student" in line).strip("│ ").split("│")
    trainable, total = (int(cell.replace(",", "")) for cell in cells[1:3])
    assert total - 3 * trainable == WAN_1_3B_PARAMETERS  # adapters: the student's, theta_old and theta_ref


def test_doctor_finds_checkpoints_and_says_what_is_missing(doctor_json, tmp_path):
    def parts() -> dict:
        return {part["key"]: part for part in doctor_json()["optional"]}

    assert not any(part["found"] for part in parts().values() if part["key"] != "vbench")
    write_header(tmp_path / "a" / "chunkwise" / "causal_forcing.safetensors", WAN_1_3B_PARAMETERS)
    write_header(tmp_path / "longlive-merged" / "diffusion_pytorch_model.safetensors", WAN_1_3B_PARAMETERS)
    found = parts()
    assert found["longlive"]["found"]
    assert found["longlive"]["missing"] == ""
    assert found["causal_forcing"]["found"]
    (tmp_path / "VideoReward").mkdir()
    (tmp_path / "VideoReward" / "model.pth").touch()
    assert "put model_config.json of KlingTeam/VideoReward into" in parts()["videoalign"]["missing"]
    assert found["self_forcing"]["missing"] == "self_forcing_dmd.safetensors"
