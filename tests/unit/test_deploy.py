"""What is in deploy/ holds together, and names only metrics that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.metrics_catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
#: Labels that Prometheus or an aggregation adds.
OUTER_LABELS = {"instance", "job", "le", "alertname"}
RECORDED = {
    rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
}


def expressions() -> list[tuple[str, str]]:
    found = [
        (rule.get("alert") or rule["record"], rule["expr"])
        for group in RULES["groups"]
        for rule in group["rules"]
    ]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            found += [
                (f"{path.stem}: {panel['title']}", target["expr"])
                for target in panel.get("targets", ())
            ]
    return found


def family(name: str) -> str:
    """The catalogue's name of a sample: a histogram's parts belong to it."""
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name.removesuffix(suffix) in CATALOGUE:
            return name.removesuffix(suffix)
    return name


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_expression_names_only_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    names = set(re.findall(r"\btokenweir_[a-z0-9_]+", expression))
    recorded = set(re.findall(r"\btokenweir:[a-z0-9_:]+", expression))
    assert names or recorded or expression.startswith(("up", "count(up"))
    assert recorded <= RECORDED
    assert {family(name) for name in names} <= set(CATALOGUE)
    labels = set(OUTER_LABELS)
    for name in names:
        labels |= set(CATALOGUE[family(name)].labels)
    labels |= {"gen_ai_provider_name"} if recorded else set()
    used = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        used |= {label.strip() for label in group.split(",") if label.strip()}
    assert used <= labels


def test_dashboards_are_what_the_script_writes() -> None:
    script = DEPLOY / "grafana" / "build.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do_and_has_a_known_severity() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 10
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_compose_service_is_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert service["mem_limit"]
    image = service["image"]
    assert ":" in image
    assert not image.endswith(":latest")
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{name} opens {port} to the network"
    for name_, value in (service.get("environment") or {}).items():
        if re.search("TOKEN|PASSWORD|SECRET", name_):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), f"{name_} has a default"


def test_compose_mounts_exist_and_volumes_are_declared() -> None:
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_compose_scrapes_the_replicas_it_starts() -> None:
    scrape = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    targets = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    replicas = [name for name, held in COMPOSE["services"].items() if "build" in held]
    assert targets == [f"{name}:8788" for name in replicas]
    assert len(replicas) == 2


def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def test_image_is_built_in_stages_and_runs_as_nobody_special() -> None:
    steps = dockerfile()
    assert sum(verb == "FROM" for verb, _ in steps) == 2
    final = steps[max(place for place, (verb, _) in enumerate(steps) if verb == "FROM") :]
    verbs = dict(final)
    assert verbs["USER"] == "10001:10001"
    assert verbs["ENTRYPOINT"].startswith("[")
    assert verbs["CMD"].startswith("[")
    assert verbs["HEALTHCHECK"].count("CMD [") == 1
    assert not any(verb == "ADD" for verb, _ in steps)
    assert not any("latest" in rest for verb, rest in steps if verb == "FROM")
    assert "--require-hashes" in (DEPLOY / "Dockerfile").read_text()


def test_image_copies_only_what_exists_and_is_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    for verb, rest in dockerfile():
        if verb == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert source.removeprefix("./") in allowed
                assert (ROOT / source).exists(), source


def test_the_charts_rules_are_the_rules() -> None:
    linked = DEPLOY / "helm" / "tokenweir" / "files" / "rules.yml"
    assert linked.resolve() == (DEPLOY / "prometheus" / "rules.yml").resolve()


def test_chart_schema_knows_exactly_the_values_there_are() -> None:
    chart = DEPLOY / "helm" / "tokenweir"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())

    def compare(value: Any, rule: dict[str, Any], path: str) -> None:
        known = rule.get("properties")
        if known is None or rule.get("additionalProperties") is not False:
            return
        assert set(known) - {"global"} == set(value), path
        for name, held in value.items():
            compare(held, known[name], f"{path}.{name}")

    compare(values, schema, "values")


def test_envoy_and_nginx_keep_streams_and_paths_as_they_are() -> None:
    envoy = yaml.safe_load((DEPLOY / "envoy" / "envoy.yaml").read_text())
    filters = envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    manager = filters[0]["typed_config"]
    assert manager["normalize_path"] is False
    assert manager["path_with_escaped_slashes_action"] == "KEEP_UNCHANGED"
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["timeout"] == "0s"
    assert route["retry_policy"]["retry_on"] == "connect-failure"
    nginx = (DEPLOY / "nginx" / "tokenweir.conf").read_text()
    for needed in ("proxy_buffering off;", "proxy_request_buffering off;", "merge_slashes off;"):
        assert needed in nginx
    assert not re.search(r"proxy_pass http://tokenweir_data/", nginx)
    assert "$request_uri" not in nginx.split("server {")[0]


def test_the_dashboard_script_is_a_module_that_only_writes() -> None:
    spec = importlib.util.spec_from_file_location("build", DEPLOY / "grafana" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {made["uid"] for made in (module.spend(), module.guard(), module.operations())} == {
        path.stem for path in DASHBOARDS
    }
