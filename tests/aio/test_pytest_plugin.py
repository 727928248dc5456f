"""The pytest plugin, by running pytest on small test files inside pytest (`pytester`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

# Each test runs a whole pytest session.
pytestmark = pytest.mark.slow

HEADER = """
import asyncio, contextlib, pytest, random as random_module
"""


def run(pytester: pytest.Pytester, code: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEADER + code)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_async_tests_run_under_virtual_time(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
async def test_virtual(clock):
    before = clock.now()
    await asyncio.sleep(86400)
    assert (clock.now() - before).days == 1

class TestMethods:
    async def test_in_a_class(self): await asyncio.sleep(1000)

@pytest.mark.parametrize("n", [1, 2])
async def test_parameters(n): assert n

@pytest.mark.realtime
async def test_real(clock):
    await asyncio.sleep(0)
    assert clock.now().year >= 2024
    assert asyncio.get_running_loop().time() > 1

async def test_fails(): assert False
""",
    ).assert_outcomes(passed=5, failed=1)


def test_fixtures_share_the_loop_and_live_in_one_task(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
log = []

@pytest.fixture
async def loop(): return asyncio.get_running_loop()

@pytest.fixture
async def nothing(): await asyncio.sleep(1)

@pytest.fixture
async def group(loop):
    async with asyncio.timeout(1000), asyncio.TaskGroup() as tasks:
        ticker = tasks.create_task(asyncio.sleep(10**9))
        yield tasks
        ticker.cancel()
    log.append("closed")

class TestIt:
    @pytest.fixture
    async def value(self):
        self.x = 1
        yield 2
    async def test_it(self, loop, group, nothing, value):
        assert loop is asyncio.get_running_loop()
        assert (self.x, value, nothing) == (1, 2, None)
        await group.create_task(asyncio.sleep(5))

def test_sync_tests_may_use_them(group): pass
def test_after(): assert log == ["closed", "closed"]
""",
    ).assert_outcomes(passed=3)


def test_a_fixture_that_breaks_during_the_test_fails_it_with_its_own_error(
    pytester: pytest.Pytester,
) -> None:
    result = run(
        pytester,
        """
async def break_down():
    await asyncio.sleep(5)
    raise ValueError("the server broke")

@pytest.fixture
async def server():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(break_down())
        yield

async def test_it(server): await asyncio.sleep(1000)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the server broke*"])


def test_errors_in_fixtures_are_errors(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
@pytest.fixture
async def early():
    raise ValueError("early")
    yield
@pytest.fixture
async def late():
    yield
    raise ValueError("late")
@pytest.fixture
async def twice():
    yield 1
    yield 2
async def test_early(early): pass
async def test_late(late): pass
async def test_twice(twice): pass
""",
    ).assert_outcomes(errors=3, passed=2)


def test_a_wider_scope_is_refused(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture(scope="module")
async def wide(): yield
async def test_it(wide): pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*their scope is 'function'*"])


def test_tasks_left_behind_fail_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def forgotten(): await asyncio.sleep(10)
async def test_it():
    global task
    task = asyncio.create_task(forgotten())
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*task left behind*forgotten*"])


def test_exceptions_nobody_took_fail_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def fail(): raise ValueError("unseen")
async def test_it():
    asyncio.create_task(fail())
    await asyncio.sleep(1)
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*unseen*"])


def test_deadlocks_fail_the_test_and_tear_down_still_happens(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
log = []
@pytest.fixture
async def thing():
    yield
    log.append("down")
async def test_it(thing): await asyncio.Event().wait()
def test_after(): assert log == ["down"]
""",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*deadlock: *", "*test_it*"])


def test_chance_is_replayed_from_the_printed_seed(pytester: pytest.Pytester) -> None:
    code = """
async def test_it(random): assert random.random() < 0, f"drew {random.random()}"
"""
    first = run(pytester, code)
    first.stdout.fnmatch_lines(["*replay with --pybernetes-seed=*"])
    (line,) = (line for line in first.outlines if "replay with" in line)
    second = run(pytester, code, line.split()[-1])
    drawn = [line for line in first.outlines if "AssertionError: drew" in line]
    assert drawn
    assert drawn == [line for line in second.outlines if "AssertionError: drew" in line]


def test_hypothesis_gets_a_loop_for_each_example(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from hypothesis import given, settings, strategies as st
loops = set()
@settings(database=None)
@given(st.integers(0, 5))
async def test_it(n):
    assert asyncio.get_running_loop().time() == 0
    await asyncio.sleep(1000 * n)
    loops.add(n)
@settings(database=None, max_examples=5)
@given(st.integers())
async def test_leaving_tasks(n):
    asyncio.create_task(asyncio.sleep(10))
class TestMethods:
    @settings(database=None)
    @given(st.integers(0, 5))
    async def test_it(self, n): assert n < 4
def test_after(): assert len(loops) > 2
""",
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*task left behind*"])


def test_other_plugins_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.anyio
async def test_it(): pass
""",
        "-p",
        "no:anyio",
        "-W",
        "ignore",
    )
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import pybernetes.testing.pytest_plugin;"
        "print(sorted(name for name in set(sys.modules) - before"
        " if name.partition('.')[0] not in ('pybernetes', 'random')))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "asyncio" not in out.stdout
    assert "msgspec" not in out.stdout
