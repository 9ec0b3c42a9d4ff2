"""The house's own rules: file length, imports, registry, and pages that name only what exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import tomllib
from click.testing import CliRunner

from leakdet_tf.cli import COMMANDS, cli
from leakdet_tf.config.data import Synth
from leakdet_tf.config.loading import known_keys, load
from leakdet_tf.core.registry import REGISTRY, TASKS, resolve, task_module
from leakdet_tf.core.tasks.protocol import Task
from leakdet_tf.jobs.tasks.protocol import JobsTask
from leakdet_tf.training.tasks.protocol import TrainingTask

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for folder in ("leakdet_tf", "tests", "benchmarks", "tflite") for p in (ROOT / folder).rglob("*.py"))
TOML = sorted((ROOT / "experiments").rglob("*.toml"))
PROMPTS = [path for path in TOML if "[[prompt]]" in path.read_text(encoding="utf-8")]
EXPERIMENTS = [path for path in TOML if path not in PROMPTS]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tflite" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> dict[str, click.Command]:
    """Every command by the words that call it; those of a group stand as ``data check``."""
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                own = command.get_command(context, inner)
                assert own is not None
                found[f"{name} {inner}"] = own
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_import_rules_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """All that a file imports when it runs, in functions too: a module, and the name taken from it or ""."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
        else:
            yield from imports(node)


def circles(texts: dict[str, str]) -> set[tuple[str, ...]]:
    """The modules that import each other, in any number of steps, of files' ``texts`` by module."""
    reached: dict[str, set[str]] = {}
    for module, text in texts.items():
        taken = [f"{name}.{part}" if f"{name}.{part}" in texts else name for name, part in imports(ast.parse(text))]
        reached[module] = {name for name in taken if name in texts}
    for middle in texts:
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    return {
        tuple(sorted(other for other in found if module in reached[other]))
        for module, found in reached.items()
        if module in found
    }


def test_no_two_modules_import_each_other() -> None:
    paths = {
        path: path.relative_to(ROOT).with_suffix("") for path in SOURCES if path.is_relative_to(ROOT / "leakdet_tf")
    }
    texts = {
        ".".join(short.parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
        for path, short in paths.items()
    }
    found = circles(texts)
    assert not found, "these import each other: " + "; ".join(" ".join(circle) for circle in sorted(found))


def test_a_circle_is_found_in_whatever_way_it_is_imported() -> None:
    texts = {
        "p": "from p.a import x",
        "p.a": "from __future__ import annotations\nfrom p import b\nx = 1",
        "p.b": "def act():\n    import p.c",
        "p.c": "if x:\n    pass\nelse:\n    from p.a import x",
        "p.d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.e import y\nelse:\n    import p.a",
        "p.e": "from p.d import z",
    }
    assert circles(texts) == {("p.a", "p.b", "p.c")}


def named_tasks(tree: ast.AST) -> list[int]:
    """Lines on which something is compared with a task's name, or chosen by it from a table."""
    found = []
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [inner for part in (node.left, *node.comparators) for inner in ast.walk(part)]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        if any(isinstance(part, ast.Constant) and part.value in TASKS for part in parts):
            found.append(node.lineno)
    return found


def test_only_a_task_s_own_modules_know_its_name() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "leakdet_tf").rglob("*.py"))
        for line in named_tasks(ast.parse(path.read_text(encoding="utf-8")))
        if path.stem not in TASKS or path.parent.name != "tasks"
    }
    registry = "leakdet_tf/core/registry.py"
    assert not {place for place in found if not place.startswith(registry)}
    assert len([place for place in found if place.startswith(registry)]) == 1  # the table that names them


@pytest.mark.parametrize("text", ['a == "detect"', 'x in ("classify", "b")', '{"segment": 1}[kind]', '"detect" != a'])
def test_a_comparison_with_a_task_s_name_is_seen(text: str) -> None:
    assert named_tasks(ast.parse(text)) == [1]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("floor", "protocol"), [("core", Task), ("training", TrainingTask), ("jobs", JobsTask)])
def test_every_task_stands_on_every_floor(name: str, floor: str, protocol: type) -> None:
    assert task_module(name, floor, protocol).__name__ == f"leakdet_tf.{floor}.tasks.{name}"
    text = (ROOT / "leakdet_tf" / "jobs" / "tasks" / "__init__.py").read_text(encoding="utf-8")
    assert f"    _{name}: tuple[Task, TrainingTask, JobsTask] = (core_{name}, training_{name}, {name})\n" in text


def test_a_file_in_jobs_is_a_command_of_its_name() -> None:
    files = {path.stem for path in (ROOT / "leakdet_tf" / "jobs").glob("*.py")} - {"__init__"}
    assert files <= {path.stem for path in (ROOT / "leakdet_tf" / "cli").glob("*.py")}
    called = {name.replace(" ", "_").replace("GENERATOR", "render") for name in commands()}
    assert files <= called


def test_the_papers_heads_differ_in_their_activation_alone() -> None:
    plain = [load(path).model_dump() for path in sorted((ROOT / "experiments" / "paper").glob("gas_unet_*.toml"))]
    assert sorted(one["model"].pop("activation") for one in plain) == ["linear", "sigmoid", "softmax"]
    for one in plain:
        one.pop("name")
        assert one == plain[0]


def test_tflite_is_no_package() -> None:
    assert not list((ROOT / "tflite").rglob("__init__.py"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_loads_and_names_what_is_registered(path: Path) -> None:
    experiment = load(path)
    assert experiment.model.factory in REGISTRY["model"]
    assert experiment.name == path.stem
    for source in experiment.data.sources:
        assert source.synth is None or source.synth.generator in REGISTRY["generator"]
    assert set(experiment.train.loss) <= set(REGISTRY["loss"])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in REGISTRY.items() for name in table])
def test_every_registered_name_resolves(kind: str, name: str) -> None:
    assert callable(resolve(kind, name))


@pytest.mark.parametrize("name", REGISTRY["generator"])
def test_every_generator_is_named_where_they_are_listed(name: str) -> None:
    told = CliRunner().invoke(cli, ["synth", "--help"], terminal_width=200).output
    assert re.search(rf"GENERATOR .*\b{name}\b", told)
    assert re.search(rf"GENERATOR is .*\b{name}\b", " ".join((commands()["synth GENERATOR"].help or "").split()))
    assert f"`{name}`" in str(Synth.model_fields["generator"].description)


def test_every_key_is_on_the_reference_page() -> None:
    text = (ROOT / "docs" / "experiment-file.md").read_text(encoding="utf-8")
    missing = [
        k for k, table in known_keys() if table.model_fields[k.rsplit(".", 1)[-1]].description and f"`{k}`" not in text
    ]
    assert not missing


def test_the_reference_page_is_what_the_schema_says() -> None:
    from leakdet_tf.config.reference import page

    assert (ROOT / "docs" / "experiment-file.md").read_text(encoding="utf-8") == page(), "run: make docs"


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Every help text, from a process of its own: click keeps the options of a command that was called by itself."""
    code = """if True:
        import json, sys
        from click.testing import CliRunner
        from leakdet_tf.cli import cli
        asked = {name: [*name.split(), "--help"] for name in json.loads(sys.argv[1])}
        told = {name: CliRunner().invoke(cli, words, prog_name="leakdet-tf", terminal_width=100)
                for name, words in asked.items()}
        print(json.dumps({name: done.output if done.exit_code == 0 else "failed" for name, done in told.items()}))
    """
    call = [sys.executable, "-c", code, json.dumps(["", *commands()])]
    found = json.loads(subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", ["", *commands()])
def test_readme_holds_every_help_text_as_it_is_printed(name: str, helps: dict[str, str]) -> None:
    assert helps[name].startswith("Usage: leakdet-tf")
    assert helps[name].strip() in README, f"README lacks, or holds otherwise: leakdet-tf {name} --help"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_benchmarks_that_a_page_names_are_there_with_the_options_it_gives(page: Path) -> None:
    for line in re.findall(r"`python (benchmarks/[^`]*)`", page.read_text(encoding="utf-8")):
        script, *words = shlex.split(line)
        text = (ROOT / script).read_text(encoding="utf-8")
        for option in (word.removeprefix("--") for word in words if word.startswith("--")):
            assert f'"{option}"' in text or f'"--{option}"' in text, f"{page.name}: {line}"


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [(page.name, match[1]) for match in re.finditer(rf"```{language}\n(.*?)```", text, re.S)]
    return found


def test_every_command_line_in_the_docs_uses_options_that_exist() -> None:
    checked = 0
    for page, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.split("#")[0].split()
            if words[:1] != ["leakdet-tf"] or len(words) < 2 or words[1].startswith("-"):
                continue
            names = [" ".join(words[1:3]), f"{words[1]} GENERATOR", words[1]]
            command = next(commands()[name] for name in names if name in commands())
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            unknown = [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in known]
            assert not unknown, f"{page}: {line}"
            checked += 1
    assert checked >= 8


def test_every_set_in_the_docs_names_a_key() -> None:
    keys = {key for key, _ in known_keys()}
    checked = 0
    for page in PAGES:
        for match in re.finditer(r"--set ([a-z_.]+)=", page.read_text(encoding="utf-8")):
            key = match[1]
            generic = re.sub(r"^data\.inputs\.[a-z_]+", "data.inputs.*", key)
            assert generic in keys or key.startswith("model."), f"{page.name}: {key}"
            checked += 1
    assert checked >= 2


def test_every_toml_block_in_the_docs_parses() -> None:
    for page, block in blocks("toml"):
        assert tomllib.loads(block), page


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_locks_pin_every_direct_dependency() -> None:
    import configparser

    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    extras = dict(parser["options.extras_require"])
    for apart in ("diffusion", "jax", "torch"):  # in environments of their own, see the Makefile
        del extras[apart]
    wanted = parser["options"]["install_requires"] + "".join(extras.values())
    lines = [line.strip() for line in wanted.splitlines() if line.strip()]
    names = {re.split(r"[><=;\[ ]", line)[0].lower().replace("_", "-") for line in lines}
    names.discard("leakdet-tf")
    for lock in sorted((ROOT / "constraints").glob("py31[123].txt")):
        pinned = {line.split("==")[0].lower() for line in lock.read_text().splitlines()}
        assert not names - pinned, lock.name
