#!/usr/bin/env python3
"""Stands in for `gate`: writes down how it was called, and does what the test says it should.

Standard library only; the file GATE_SAYS holds exit codes by command, and the text to put where texts would be.
"""

import json
import os
import pathlib
import sys


def option(name: str, arguments: list[str]) -> str:
    for at, argument in enumerate(arguments):
        if argument == name:
            return arguments[at + 1]
        if argument.startswith(name + "="):
            return argument.partition("=")[2]
    raise SystemExit(f"no {name}")


def outputs(**values: object) -> None:
    with pathlib.Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.writelines(f"{name.replace('_', '-')}={value}\n" for name, value in values.items())


def main() -> None:
    arguments = sys.argv[1:]
    says = json.loads(pathlib.Path(os.environ["GATE_SAYS"]).read_text(encoding="utf-8"))
    command = (
        " ".join(a for a in arguments[:2] if not a.startswith("-"))
        if arguments[0] in ("ci", "publish")
        else arguments[0]
    )
    called = {"command": command, "arguments": arguments, "environ": dict(os.environ)}
    with pathlib.Path(says["calls"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(called) + "\n")
    code = says["codes"].get(command, 0)
    if command == "publish github" and "--start" in arguments:
        code = says["codes"].get("start", 0)
    text = says["text"]
    match command:
        case "ci policy":
            out = pathlib.Path(option("--out", arguments))
            out.mkdir(parents=True)
            (out / "policy.yaml").write_text("version: 1\n")
            outputs(policy=out / "policy.yaml", waivers=says["waivers"], changed=says["changed"])
        case "run" if says["record"]:
            out = pathlib.Path(option("--out", arguments))
            out.mkdir(parents=True)
            said = code if says["recorded"] is None else says["recorded"]
            (out / "run.json").write_text(json.dumps({"texts": text, "exit_code": said}))
            (out / "log.txt").write_text(text)
            if says["stores"]:
                store = pathlib.Path(option("--store", arguments))
                store.mkdir(parents=True, exist_ok=True)
                (store / "measured").write_text("x")
        case "share" if not code:
            out = pathlib.Path(option("--out", arguments))
            out.mkdir(parents=True)
            (out / "run.json").write_text("{}")
            code = says["codes"].get("half a share", 0)
        case "ci outputs":
            exit_code = option("--exit-code", arguments)
            outputs(status="ANY", exit_code=exit_code, sentence="A sentence.", run_json="run.json")
            with pathlib.Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as file:
                file.write("summary\n")
        case "ci detect":
            print(json.dumps(says["detected"]))
            names = json.dumps([one["name"] for one in says["detected"]])
            outputs(matrix=json.dumps({"include": says["detected"]}), count=len(says["detected"]), names=names)
        case "ci verify":
            out = pathlib.Path(option("--out", arguments))
            out.mkdir(parents=True)
            (out / "run.json").write_text("{}")
            code = says["codes"].get(f"verify {out.name}", code)
    sys.exit(code)


if __name__ == "__main__":
    main()
