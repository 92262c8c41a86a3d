"""Lines of C libraries on stderr: caught, handed on, and never mixed into JSON."""

import json
import os
import subprocess
import sys
import threading

from hbr.streams import native_stderr, stderr_to


def test_recognised_lines_are_caught_and_others_pass(capfd):
    with native_stderr(lambda line: line.startswith("libx")) as lines:
        os.write(2, b"libx: one\nanother thread\nlibx: two\n")
        print("python", file=sys.stderr)
    assert lines == ["libx: one", "libx: two"]
    assert sorted(capfd.readouterr().err.splitlines()) == ["another thread", "python"]


def test_blocks_may_be_nested_and_fail(capfd):
    with native_stderr(lambda line: line == "outer") as outer:
        try:
            with native_stderr(lambda line: line == "inner") as inner:
                os.write(2, b"inner\nouter\n")
                raise ValueError
        except ValueError:
            os.write(2, b"outer\n")
    assert (inner, outer) == (["inner"], ["outer", "outer"])
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_threads_wait_for_each_other(capfd):
    def work(number: int) -> None:
        word = f"thread {number}"
        for _ in range(20):
            with native_stderr(lambda line: line.startswith("thread")) as lines:
                os.write(2, f"{word}\n".encode())
            assert lines == [word]
            done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 80
    assert capfd.readouterr().err == ""


def test_a_closed_stderr_is_no_error():
    code = (
        "import os; os.close(2)\nfrom hbr.streams import native_stderr\n"
        "with native_stderr(bool) as lines: print('inside')\nprint(lines)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "inside\n[]\n"


def test_all_of_stderr_becomes_reports():
    code = """
import json, os, sys
from hbr.streams import stderr_to
with stderr_to(lambda line: print(json.dumps(line), file=sys.stderr)):
    os.write(2, b"from C\\n\\nagain")
    os.system("echo from a child >&2")
    print(json.dumps("from Python"), file=sys.stderr)
os.write(2, b"plain\\n")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *lines, last = run.stderr.splitlines()
    assert last == "plain"
    assert sorted(json.loads(line) for line in lines) == [
        "againfrom a child",
        "from C",
        "from Python",
    ]


def test_stderr_to_gives_back_what_it_took(capfd):
    before, said = sys.stderr, []
    with stderr_to(said.append):
        os.write(2, b"line\n")
    assert sys.stderr is before
    assert said == ["line"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
