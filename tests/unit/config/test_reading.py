"""Reading the configuration: every fault at once, each at its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy import config
from proxy.config import ConfigError, Settings
from proxy.pattern import Pattern


def faults(text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "f", environment)
    return caught.value.lines()


def test_all_faults_at_once_with_place_and_nearest_key() -> None:
    text = "mode: enforced\nserver:\n  prot: 1\n  port: abc\nbudgets:\n  - name: x\n"
    assert faults(text) == [
        "f:1:1: mode: must be 'observe', 'shadow' or 'enforce'; did you mean `enforce`?",
        "f:3:3: server.prot: unknown key; did you mean `port`?",
        "f:4:3: server.port: input should be a valid integer, unable to parse string as an integer",
        "f:6:5: budgets[0].amount_usd: is required",
    ]


def test_an_unknown_section_with_no_near_name_tells_those_there_are() -> None:
    assert "known here: admin, alerts" in faults("zzz: 1\n")[0]


def test_a_doubled_key_is_refused_with_both_lines() -> None:
    (fault,) = faults("server:\n  port: 1\n  host: a\n  port: 2\n")
    assert fault == "f:4:3: server.port: the key stands twice, on lines 2 and 4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {<<: {port: 1}}\n", "merging with << is not allowed"),
        ("server: !!python/object:os.system {}\n", "is not allowed"),
        ("a: [\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("- 1\n", "must be a mapping"),
        ("a: &a [*a]\n", "an alias inside itself"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("data_dir: ${\n", "`${` needs NAME}"),
    ],
)
def test_what_is_not_allowed_in_a_file(text: str, said: str) -> None:
    assert said in faults(text)[0]


def test_aliases_that_multiply_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "an alias that multiplies" in faults("\n".join(lines))[0]


def test_core_schema_words_stay_words() -> None:
    settings = config.parse("server: {host: no, port: 017}\n", "f", {})
    assert (settings.server.host, settings.server.port) == ("no", 17)


def test_variables_are_put_in_after_parsing() -> None:
    text = "server: {host: '${HOST}', port: '${PORT:-9000}'}\nkeys: {install_secret: a$$b}\n"
    settings = config.parse(text, "f", {"HOST": "x: {y}"})
    assert (settings.server.host, settings.server.port) == ("x: {y}", 9000)
    assert settings.keys.install_secret is not None
    assert settings.keys.install_secret.get_secret_value() == "a$b"


def test_a_missing_secret_is_named_and_nothing_else_told() -> None:
    text = "upstreams: {a: {base_url: 'http://h', api_key: '${A_KEY}'}}\n"
    (fault,) = faults(text, OTHER="sk-secret")
    assert fault.endswith(": upstreams.a.api_key: the environment variable A_KEY is not set")


def test_a_wrong_value_that_holds_a_secret_is_not_repeated() -> None:
    text = "server: {port: '${SECRET}'}\nmode: '${SECRET}'\n"
    assert "canary" not in "".join(faults(text, SECRET="canary-1234"))


@pytest.mark.parametrize("bad", ["~(a+)+", "~(a|aa)*b", "~(.)\\1", "~[", "~.*.*.*.*x", "a*b*c*d*e"])
def test_patterns_that_backtrack_or_do_not_compile_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Pattern(bad)
    text = f"protect:\n  - match: {{agent: ['{bad}']}}\n"
    assert "protect[0].match.agent[0]" in faults(text)[0]


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("team-*", "team-a", True),
        ("*-prod", "a-prod", True),
        ("team-*", "ateam-a", False),
        ("~team-[0-9]+", "team-12", True),
        ("~team-[0-9]+", "team-12x", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns_match_whole_values(pattern: str, value: str, matches: bool) -> None:
    assert Pattern(pattern).matches(value) is matches


def test_secrets_written_into_the_file_are_not_shown() -> None:
    text = (
        "upstreams: {a: {base_url: 'http://h', api_key: sk-canary}}\n"
        "alerts:\n  receivers:\n    - name: w\n      type: webhook\n"
        "      url: https://h.example/canary\n      headers:\n        Authorization: canary\n"
    )
    assert "canary" not in config.parse(text, "f", {}).text


class Reloads:
    """What a watch told."""

    def __init__(self) -> None:
        self.good: list[Settings] = []
        self.bad: list[ConfigError] = []

    async def until(self, good: int, bad: int) -> None:
        async with asyncio.timeout(60):
            while (len(self.good), len(self.bad)) != (good, bad):
                await asyncio.sleep(0.02)


async def test_a_watched_file_is_taken_when_whole_and_good(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {port: 1}\n")
    told, stop = Reloads(), asyncio.Event()
    task = asyncio.create_task(config.watch(file, told.good.append, told.bad.append, stop=stop))
    await asyncio.sleep(0.3)

    # Written piece by piece: only the whole is taken.
    with file.open("w") as out:
        for piece in ("server:", " {port", ": 2}", "\n"):
            out.write(piece)
            out.flush()
            await asyncio.sleep(0.1)
    await told.until(1, 0)
    assert told.good[0].server.port == 2

    # Replaced by a rename, twice, as editors and ConfigMaps do.
    for number, port in ((2, 3), (3, 4)):
        new = tmp_path / "new"
        new.write_text(f"server: {{port: {port}}}\n")
        new.rename(file)
        await told.until(number, 0)
        assert told.good[-1].server.port == port

    file.write_text("server: {prot: 1}\n")
    await told.until(3, 1)
    assert "did you mean `port`" in str(told.bad[0])
    stop.set()
    await asyncio.wait_for(task, 5)


def test_the_schema_describes_every_setting() -> None:
    schema = config.schema()
    bare = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, about in definition.get("properties", {}).items()
        if not about.get("description")
    ]
    assert not bare


def test_one_word_is_read_as_a_list_of_it_and_other_things_are_not() -> None:
    settings = config.parse(
        "limits:\n- name: few\n  by: agent\n  match: {key: key_1}\n  requests: 5\n"
        "policies: {rules: [{name: p, match: {signals: agent_loop, dimensions: agent}}]}\n",
        "f",
        {},
    )
    assert settings.limits[0].by == ("agent",)
    assert settings.limits[0].match == {"key": ("key_1",)}
    assert settings.policies.rules[0].match.dimensions == ("agent",)
    with pytest.raises(config.ConfigError) as caught:
        config.parse("limits:\n- name: few\n  by: 7\n  match: {key: {}}\n  requests: 5\n", "f", {})
    assert caught.value.lines() == [
        "f:3:3: limits[0].by: must be a list",
        "f:4:11: limits[0].match.key: must be a list",
    ]
    with pytest.raises(config.ConfigError) as wrong:
        config.parse("limits:\n- name: few\n  by: agnet\n  requests: 5\n", "f", {})
    assert wrong.value.lines()[0].startswith("f:3:3: limits[0].by")
