"""The TypeScript module of an endpoint: as text, under the compiler, and run with both clients.

The compiler takes most of its time to start, so one run checks the files of all tests.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from pydantic import create_model

from examples import endpoints
from hubbub import ConnectionManager, Endpoint, demo
from hubbub import client as page_client
from hubbub.cli import main
from hubbub.endpoints.documentation import Site
from hubbub.endpoints.typescript import typescript
from tests.integration import typed_app
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.integration.support import serving
from tests.unit.endpoints import everything

TYPED: Final = JS / "typed"
EXAMPLES: Final = Path(endpoints.__file__).parent
OURS: Final = Path(page_client.__file__).parent


def document(live: Endpoint) -> dict[str, Any]:
    return live._documentation.document(Site.of("ws://localhost:8000"))


def endpoint(app: FastAPI | None = None) -> Endpoint:
    manager = ConnectionManager()
    manager.install(app or FastAPI())
    return manager.endpoint("/live", auth=None)


def of_schemas(schemas: dict[str, Any]) -> dict[str, Any]:
    """A document with these schemas, and nothing else."""
    return {"channels": {}, "operations": {}, "components": {"schemas": schemas}}


def node(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NODE, *arguments], capture_output=True, text=True, check=False)


def compiler(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return node(JS / "node_modules" / "typescript" / "bin" / "tsc", "--pretty", "false", *arguments)


def test_the_module_of_an_app_that_uses_everything_is_as_expected() -> None:
    """To write it again: ``hubbub types tests.integration.typed_app:app --out tests/js/typed/live.ts``."""
    assert typescript(document(typed_app.live)) == (TYPED / "live.ts").read_text()


def test_declarations_are_the_module_without_its_function() -> None:
    module, declarations = (typescript(document(typed_app.live), declarations=each) for each in (False, True))
    assert "export function" in module
    assert "function" not in "".join(line for line in declarations.splitlines() if "*" not in line and "//" not in line)
    assert set(declarations.splitlines()) < set(module.splitlines())


def test_models_keep_their_names_beside_others_that_are_no_identifiers() -> None:
    names = ("Order-Input", "OrderInput", "class", "LiveRooms", "1st", "Page_int_", "a.b", "aB")
    text = typescript(of_schemas({name: {"type": "object", "properties": {name: True}} for name in names}))
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("export interface")]
    assert declared[: len(names)] == [
        "OrderInputModel",
        "OrderInput",
        "classModel",
        "LiveRoomsModel",
        "_1st",
        "Page_int_",
        "aBModel",
        "aB",
    ]


APP = """
from fastapi import FastAPI
from hubbub import ConnectionManager
from pydantic import BaseModel

class Say(BaseModel):
    text: {type}

app, manager = FastAPI(), ConnectionManager()
manager.install(app)
live = manager.endpoint("/live", auth=None)

@live.on("say")
async def say(message: Say) -> None: ...
"""


def test_check_fails_once_a_model_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, kind in (("typed_before", "str"), ("typed_after", "int")):
        (tmp_path / f"{name}.py").write_text(APP.format(type=kind))
    for name in ("live.ts", "live.d.ts"):
        main(["types", "typed_before:app", "--out", name])
        main(["types", "typed_before:app", "--out", name, "--check"])
        with pytest.raises(SystemExit, match="1"):
            main(["types", "typed_after:app", "--out", name, "--check"])
        problem = f"hubbub: {name} is not up to date: run the same command without --check\n"
        assert capsys.readouterr() == ("", problem)
    assert "\n  text: string;\n" in (tmp_path / "live.d.ts").read_text()
    main(["types", "typed_before:app"])
    assert capsys.readouterr().out == (tmp_path / "live.ts").read_text()


def test_the_types_of_the_support_desk_are_up_to_date() -> None:
    command = ("-m", "hubbub", "types", "support_desk.app:app", "--check", "--out", "support_desk/page/src/live.ts")
    environment = {**os.environ, "JWT_KEY": "x" * 32}  # it reads its settings when it is imported
    done = subprocess.run([sys.executable, *command], cwd=EXAMPLES, env=environment, check=False)
    assert done.returncode == 0


def test_a_long_union_has_a_line_for_each_member() -> None:
    values = [f"{'x' * 40} | {number}" for number in range(3)]
    text = typescript(of_schemas({"Long": {"enum": values}, "Of": {"anyOf": [{"enum": values}, {"const": values[0]}]}}))
    for name in ("Long", "Of"):
        assert f"export type {name} =\n" + "".join(f'  | "{value}"\n' for value in values)[:-1] + ";" in text


# The compiler


def many() -> str:
    """The module of an app with hundreds of models, methods and rooms."""
    live = endpoint()
    previous: Any = str
    for number in range(200):
        value = previous if number % 10 else str
        previous = create_model(f"Model{number}", value=(value, ...), count=(int, number))

        async def function(message: Any) -> Any: ...

        function.__annotations__ |= {"message": previous, "return": list[previous]}
        live.on(f"method.{number}")(function)

        async def rule(part: str) -> None: ...

        live.room(f"room{number}:{{part}}", sends=previous)(rule)
    return typescript(document(live)) + (
        "declare const client: Live;\n"
        'export const last: Model199Output = (await client.rpc("method.199", {} as Model199Input)).data[0]!;\n'
        'client.newSubscription("room199:a").on("publication", ({ data }) => data.value.value.count);\n'
        "// @ts-expect-error\n"
        'client.newSubscription("room200:a");\n'
    )


TEXTS: Final = ["a", "b c", "*/", "`${x}`", '"', "\\", "\n", "é\u2028", "constructor", "1", ""]


def any_schema(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema of any kind, valid or odd."""
    text = chance.choice(TEXTS)
    names = chance.sample(TEXTS, 3)
    inner = [any_schema(chance, depth - 1) for _ in range(chance.randrange(1, 4))] if depth else [{}]
    kinds: list[dict[str, Any]] = [
        {},
        {"type": chance.choice(["string", "integer", "number", "boolean", "null"]), "format": text},
        {"type": ["string", "null"], "pattern": text},
        {"enum": chance.sample([*TEXTS, 1, -1.5, True, None, [1, "a"], {"a b": 1}], 3)},
        {"const": chance.choice([text, 0, False, None, []])},
        {"$ref": f"#/components/schemas/{chance.choice(['Tree', 'Odd-Name', 'Value'])}"},
        {"type": "array", "items": inner[0]},
        {"type": "array", "items": inner, "minItems": chance.randrange(4), "maxItems": chance.choice([None, 4])},
        {"anyOf": inner},
        {"oneOf": inner, "discriminator": "a"},
        {"allOf": inner},
        {"type": "object", "additionalProperties": chance.choice([True, False, inner[0]])},
        {"type": "object", "patternProperties": {"^a": inner[0]}},
        {
            "type": "object",
            "propertyNames": {"enum": chance.sample([*TEXTS, 1, None, True], 2)},
            "additionalProperties": {},
        },
        {"type": "object", "properties": dict(zip(names, inner, strict=False)), "required": chance.sample(TEXTS, 4)},
        {"type": "object", "properties": dict.fromkeys(names, inner[0]), "additionalProperties": inner[-1]},
    ]
    about = {"description": f"About\n{text}", "default": text} if chance.random() < 0.3 else {}
    return chance.choice(kinds if depth else kinds[:6]) | about


def any_schemas() -> str:
    """A module with models of many schemas, always the same ones."""
    chance = random.Random(14)
    tree = {"anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}, {"type": "string"}]}
    value = {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Value"}}
    schemas = {f"Model{number}": any_schema(chance) for number in range(200)}
    return typescript(of_schemas({**schemas, "Tree": tree, "Value": value, "Odd-Name": {"type": "string"}}))


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the compiler says, by the names of the files."""
    require_packages("typescript")
    folder = tmp_path_factory.mktemp("typed")
    (folder / "many.ts").write_text(many())
    (folder / "any.ts").write_text(any_schemas())
    (folder / "everything.ts").write_text(typescript(document(everything.live)))
    (folder / "node_modules").symlink_to(JS / "node_modules")
    (folder / "live.ts").write_text(typescript(document(endpoints.live)))
    (folder / "typed_client.ts").write_text((EXAMPLES / "typed_client.ts").read_text())
    (folder / "nothing.ts").write_text(typescript(document(endpoint())))
    (folder / "declarations.d.ts").write_text(typescript(document(typed_app.live), declarations=True))
    options = {
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noUncheckedIndexedAccess": True,
        "noUnusedLocals": True,
        "noUnusedParameters": True,
        "erasableSyntaxOnly": True,
        "verbatimModuleSyntax": True,
        "isolatedModules": True,
        "noEmit": True,
        "allowImportingTsExtensions": True,
        "module": "esnext",
        "moduleResolution": "bundler",
        "target": "es2022",
        "lib": ["es2022", "dom"],
        "types": [],
        "paths": {"/hubbub/hubbub.js": [str(OURS / "hubbub.d.ts")]},
    }
    files = [TYPED / "usage.ts", TYPED / "run.ts", *sorted(folder.glob("*.ts"))]
    config = {"compilerOptions": options, "files": [str(file) for file in files]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    done = compiler("-p", folder)
    found: dict[str, list[str]] = {file.name: [] for file in files}
    for line in (done.stdout + done.stderr).splitlines():
        name = Path(line.partition("(")[0]).name
        found.setdefault(name, []).append(line)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "usage.ts",
        "run.ts",
        "typed_client.ts",
        "live.ts",
        "everything.ts",
        "many.ts",
        "any.ts",
        "nothing.ts",
        "declarations.d.ts",
    ],
)
def test_the_compiler_takes_the_module_and_its_right_uses_and_refuses_the_wrong_ones(
    problems: dict[str, list[str]], name: str
) -> None:
    assert problems.pop(name) == []


def test_the_compiler_says_nothing_about_other_files(problems: dict[str, list[str]]) -> None:
    assert not [line for lines in problems.values() for line in lines]


@pytest.mark.parametrize("module", ["centrifuge", str(OURS / "hubbub.js")], ids=["theirs", "ours"])
def test_the_module_runs_with_both_clients(module: str) -> None:
    require_packages()
    typed_app.seen.clear()
    with serving(typed_app.app) as server:
        done = node(TYPED / "run.ts", f"ws://127.0.0.1:{server.port}/live", module)
    assert done.returncode == 0, done.stdout + done.stderr


# The demo

DEMO: Final = Path(demo.__file__).parent


def test_the_types_of_the_demo_are_up_to_date() -> None:
    main(["types", "hubbub.demo.app:create_app", "--factory", "--check", "--out", str(DEMO / "static/endpoint.d.ts")])


def test_the_pages_of_the_demo_use_the_types_without_a_build_step() -> None:
    require_packages("typescript")
    done = compiler("--noEmit", "-p", DEMO / "jsconfig.json")
    assert done.stdout + done.stderr == ""
