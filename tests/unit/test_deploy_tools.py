"""What is in deploy/, judged by the tools that will read it. Skips where one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.test_deploy import DEPLOY, expressions


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, cwd: Path = DEPLOY) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_rules_fire_as_their_tests_say() -> None:
    promtool = tool("promtool")
    run(promtool, "check", "rules", "prometheus/rules.yml")
    run(promtool, "test", "rules", "prometheus/rules_test.yml")


def test_prometheus_and_alertmanager_read_their_configurations() -> None:
    run(tool("promtool"), "check", "config", "--syntax-only", "compose/prometheus.yml")
    run(tool("amtool"), "check-config", "compose/alertmanager.yml")


def test_prometheus_can_parse_every_panel(tmp_path: Path) -> None:
    promtool = tool("promtool")
    rules = [
        {
            "record": f"panel:{number}",
            "expr": expression.replace("$__rate_interval", "5m")
            .replace("$provider", ".*")
            .replace("$agent", ".*"),
        }
        for number, (_, expression) in enumerate(expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", path)


def test_systemd_accepts_and_confines_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    unit = tmp_path / "tokenweir.service"
    text = (DEPLOY / "systemd" / "tokenweir.service").read_text()
    unit.write_text(text.replace("/opt/tokenweir/bin/tokenweir", "/bin/true"))
    told = subprocess.run([analyze, "verify", unit], capture_output=True, text=True).stderr
    assert "tokenweir.service" not in told, told
    run(analyze, "security", "--offline=true", "--threshold=20", unit)


def test_nginx_accepts_the_front(tmp_path: Path) -> None:
    nginx = tool("nginx")
    openssl = tool("openssl")
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    run(
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "1", "-subj", "/CN=llm.example.com", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    front = (DEPLOY / "nginx" / "tokenweir.conf").read_text()
    front = front.replace("/etc/tokenweir/tls", str(tmp_path))
    front = front.replace("/var/log/nginx/tokenweir.log", str(tmp_path / "access.log"))
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{\n{front}\n}}\n"
    )
    run(nginx, "-t", "-c", whole, "-p", tmp_path)


def test_helm_renders_the_chart() -> None:
    helm = tool("helm")
    chart = DEPLOY / "helm" / "tokenweir"
    run(helm, "lint", chart, "--set", "store.url=redis://store:6379/0")
    full = (
        "serviceMonitor.enabled=true,prometheusRule.enabled=true,ingress.enabled=true,"
        "store.existingSecret=store,tls.existingSecret=cert,admin.existingSecret=admin"
    )
    rendered = run(helm, "template", "t", chart, "--set", full)
    kinds = {document["kind"] for document in yaml.safe_load_all(rendered) if document}
    assert kinds == {
        "ConfigMap", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PodDisruptionBudget",
        "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
    }  # fmt: skip
    refused = subprocess.run([helm, "template", "t", chart], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "store" in refused.stderr


def test_compose_reads_the_file_and_asks_for_its_secrets(tmp_path: Path) -> None:
    compose = tool("docker-compose")
    # Its first version knows no project name in the file; all else is read by both.
    text = (DEPLOY / "compose.yaml").read_text().replace("name: tokenweir\n", "", 1)
    (tmp_path / "compose.yaml").write_text(text)
    command = [compose, "-f", str(tmp_path / "compose.yaml"), "config", "-q"]
    secrets = {"TOKENWEIR_ADMIN_TOKEN": "x" * 32, "GRAFANA_ADMIN_PASSWORD": "y" * 32}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, env={**environment, **secrets}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bare = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert bare.returncode != 0
    assert "set it" in bare.stderr


def test_hadolint_has_no_complaint() -> None:
    run(tool("hadolint"), "Dockerfile")


def test_yaml_is_tidy() -> None:
    yamllint = tool("yamllint")
    rules = (
        "{extends: default, rules: {line-length: disable, document-start: disable, "
        "braces: {max-spaces-inside: 1}, truthy: {check-keys: false}, comments: disable}}"
    )
    run(
        yamllint, "-d", rules, "compose.yaml", "compose", "prometheus", "envoy", "grafana",
        "helm/tokenweir/values.yaml", "helm/tokenweir/Chart.yaml",
    )  # fmt: skip
