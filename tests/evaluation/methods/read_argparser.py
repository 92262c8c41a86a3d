"""Takes the options off a program's argparser without running it: an entry of argparsers.json.

python read_argparser.py CLONE SCRIPT
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

# What makes an option accept or refuse words; defaults and help texts do not.
KEPT = ("type", "choices", "nargs", "action", "required")


def arguments(source: str) -> list[tuple[list[str], dict[str, object]]]:
    """The flags of each argument, and what it accepts."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr != "add_argument":
            continue
        flags = [ast.literal_eval(flag) for flag in node.args]
        kept = {word.arg: word.value for word in node.keywords if word.arg in KEPT}
        found.append((flags, {str(name): plain(value) for name, value in kept.items()}))
    return sorted(found)


def plain(value: ast.expr) -> object:
    """A literal, or the last part of a name: `int`, `str2bool`, `BooleanOptionalAction`."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return value.attr
    return ast.literal_eval(value)


if __name__ == "__main__":
    clone, script = sys.argv[1:]
    show = ("git", "-C", clone, "rev-parse", "HEAD")
    commit = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    show = ("git", "-C", clone, "show", f"HEAD:{script}")
    source = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    entry = {"script": Path(script).name, "commit": commit, "arguments": arguments(source)}
    print(json.dumps(entry))
