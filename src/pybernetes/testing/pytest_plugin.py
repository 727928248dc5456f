"""Pytest plugin: `async def` tests run under virtual time.

Loaded by its entry point wherever pybernetes is installed, so it imports nothing
but pytest until a test needs more, and leaves alone what another plugin has
marked as its own (`asyncio`, `anyio`, `trio`).

- An `async def` test runs on a `VirtualTimeLoop`; with `@pytest.mark.realtime` on
  an ordinary one, because it talks to the outside.
- Async fixtures, plain or generators, share the test's loop. A generator fixture
  lives in one task from its set-up to its tear-down, so it may hold a `TaskGroup`
  or a time limit open around its `yield`; if that task fails, so does the test,
  at once and with the fixture's error.
- An async test of Hypothesis runs each example on a loop of its own; it can have no
  async fixtures, which belong to the test's loop.
- A test that leaves tasks behind fails, and so does one whose loop had to report
  an exception nobody took.
- `clock` is the test's clock. `random` is seeded from `--pybernetes-seed` and the
  test's name; the seed is printed when the test fails.
"""

from __future__ import annotations

import functools
import inspect
import random as random_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator

    from pybernetes.aio.clock import Clock
    from pybernetes.testing.cluster import Cluster

_FOREIGN_MARKS = ("asyncio", "anyio", "trio")
_SEED_OPTION = "--pybernetes-seed"


class AsyncTest:
    """The loop of one test, its fixtures' tasks, and what went wrong in the background.

    Pytest calls from outside the loop, step by step: set up each fixture, run the
    test, tear the fixtures down in reverse, close. The loop runs only during a step.
    """

    def __init__(self, *, realtime: bool) -> None:
        import asyncio

        from pybernetes.aio.virtualtime import VirtualTimeLoop

        self.realtime = realtime
        self.loop: asyncio.AbstractEventLoop = (
            asyncio.new_event_loop() if realtime else VirtualTimeLoop()
        )
        self.loop.set_exception_handler(self._note_problem)
        # What the loop's exception handler was told, in words; makes the test fail.
        self._problems: list[str] = []
        # Tasks of generator fixtures that are set up, oldest first.
        self._fixtures: list[asyncio.Task[None]] = []

    def run(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> Any:
        """One step. Its task never outlives it, whatever happens to the loop."""
        import asyncio
        from contextlib import suppress

        task = self.loop.create_task(coroutine, name=name)
        for fixture in self._fixtures:
            fixture.add_done_callback(_canceller(task))
        try:
            result = self.loop.run_until_complete(task)
        except asyncio.CancelledError:
            self._raise_fixture_error()
            raise
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    self.loop.run_until_complete(task)
        self._raise_fixture_error()
        return result

    def enter(self, generator: AsyncIterator[Any], *, name: str) -> tuple[Any, Callable[[], None]]:
        """Set up a generator fixture: its value, and the function that tears it down."""
        import asyncio

        ready: asyncio.Future[Any] = self.loop.create_future()
        finish: asyncio.Future[None] = self.loop.create_future()
        task = self.loop.create_task(_live(generator, ready, finish), name=name)

        async def set_up() -> Any:
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                task.result()
                raise RuntimeError(f"{name} did not yield")
            return ready.result()

        async def tear_down() -> None:
            if not finish.done():
                finish.set_result(None)
            await task

        value = self.run(set_up(), name=f"{name} set-up")
        self._fixtures.append(task)

        def leave() -> None:
            if task in self._fixtures:
                self._fixtures.remove(task)
                self.run(tear_down(), name=f"{name} tear-down")

        return value, leave

    def close(self) -> list[str]:
        """End everything; what is wrong with how the test left the place."""
        import asyncio

        left = asyncio.all_tasks(self.loop)
        problems = [f"task left behind: {task!r}" for task in left]
        for task in left:
            task.cancel()
        try:
            if left:
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()
        return problems + self._problems

    def _raise_fixture_error(self) -> None:
        for task in self._fixtures:
            if task.done():
                self._fixtures.remove(task)
                task.result()
                raise RuntimeError(f"{task.get_name()} ended before its tear-down")

    def _note_problem(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        import traceback

        text = str(context.get("message", "unhandled error"))
        error = context.get("exception")
        if error is not None:
            text += "\n" + "".join(traceback.format_exception(error))
        self._problems.append(text)


def _canceller(task: asyncio.Task[Any]) -> Callable[[Any], None]:
    def cancel(_: object) -> None:
        task.cancel("a fixture failed")

    return cancel


async def _live(
    generator: AsyncIterator[Any],
    ready: asyncio.Future[Any],
    finish: asyncio.Future[None],
) -> None:
    """A generator fixture's whole life, in one task."""
    import asyncio

    ready.set_result(await anext(generator))
    try:
        await finish
    except asyncio.CancelledError as error:
        # A TaskGroup held open by the fixture cancels the task it was entered in.
        # The fixture must see that at its `yield`, to turn it into the real error.
        await generator.athrow(error)  # type: ignore[attr-defined]  # it is a generator
        raise
    try:
        await anext(generator)
    except StopAsyncIteration:
        return
    raise RuntimeError("an async fixture must yield once")


_state = pytest.StashKey[AsyncTest]()


def _state_of(item: pytest.Item) -> AsyncTest:
    if _state not in item.stash:
        item.stash[_state] = AsyncTest(realtime=item.get_closest_marker("realtime") is not None)
    return item.stash[_state]


def _is_ours(item: pytest.Item) -> bool:
    return not any(item.get_closest_marker(name) for name in _FOREIGN_MARKS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        _SEED_OPTION,
        default=None,
        help="seed of the `random` fixture; without it, a new one for each run",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "realtime: run this async test on the real clock, not under virtual time"
    )
    config.addinivalue_line(
        "markers", "cluster(**settings): what the `cluster` fixture gives to `testing.Cluster`"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    # Hypothesis makes a test that calls the one we can run, once per example.
    examples = getattr(pyfuncitem.obj, "hypothesis", None)
    if examples is not None and inspect.iscoroutinefunction(examples.inner_test):
        if _is_ours(pyfuncitem):
            realtime = pyfuncitem.get_closest_marker("realtime") is not None
            examples.inner_test = _each_on_its_own_loop(examples.inner_test, realtime=realtime)
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or not _is_ours(pyfuncitem):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    _state_of(pyfuncitem).run(pyfuncitem.obj(**arguments), name="test")
    return True


def _each_on_its_own_loop(
    test: Callable[..., Coroutine[Any, Any, None]], *, realtime: bool
) -> Callable[..., None]:
    @functools.wraps(test)
    def run_example(*args: Any, **kwargs: Any) -> None:
        state = AsyncTest(realtime=realtime)
        problems: list[str] = []
        try:
            state.run(test(*args, **kwargs), name="test")
        finally:
            problems = state.close()
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)

    return run_example


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Hand pytest a plain function for the length of this call, in place of an async one."""
    function: Callable[..., Any] = fixturedef.func
    is_generator = inspect.isasyncgenfunction(function)
    item = request.node
    if not is_generator and not inspect.iscoroutinefunction(function):
        return (yield)
    if not isinstance(item, pytest.Item):
        raise pytest.UsageError(
            f"async fixture {fixturedef.argname!r} has scope {fixturedef.scope!r}: "
            "async fixtures share the loop of one test, so their scope is 'function'"
        )
    if not _is_ours(item):
        return (yield)
    state, name = _state_of(item), f"fixture {fixturedef.argname}"
    bound = _bound(function, request.instance)

    def set_up(**arguments: Any) -> Any:
        if not is_generator:
            return state.run(bound(**arguments), name=name)
        value, leave = state.enter(bound(**arguments), name=name)
        fixturedef.addfinalizer(leave)
        return value

    fixturedef.func = set_up  # type: ignore[misc]  # declared Final; put back below
    try:
        return (yield)
    finally:
        fixturedef.func = function  # type: ignore[misc]  # see above


def _bound(function: Callable[..., Any], instance: object) -> Callable[..., Any]:
    """A fixture that is a method, bound to the test's own instance of its class."""
    owner = getattr(function, "__self__", None)
    if owner is None or instance is None or not isinstance(instance, type(owner)):
        return function
    method: Callable[..., Any] = function.__func__.__get__(instance)  # type: ignore[attr-defined]  # it is bound
    return method


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    finally:
        state = item.stash.get(_state, None)
        problems: list[str] = []
        if state is not None:
            del item.stash[_state]
            problems = state.close()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


_seed = pytest.StashKey[str]()


def _session_seed(config: pytest.Config) -> str:
    if _seed not in config.stash:
        given = config.getoption(_SEED_OPTION)
        config.stash[_seed] = given or str(random_module.SystemRandom().randrange(2**32))
    return config.stash[_seed]


@pytest.fixture
def random(request: pytest.FixtureRequest) -> random_module.Random:
    """Chance that can be replayed: see `--pybernetes-seed`."""
    seed = _session_seed(request.config)
    return random_module.Random(f"{seed}/{request.node.nodeid}")


@pytest.fixture
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A running cluster with one simulated node.

    `@pytest.mark.cluster(nodes=3)` makes it larger; its arguments are those of `Cluster`.
    """
    from pybernetes.testing.cluster import Cluster

    marker = request.node.get_closest_marker("cluster")
    async with Cluster(**(marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """The test's clock: virtual, from the first second of 2026, unless it is `realtime`."""
    from datetime import UTC, datetime

    from pybernetes.aio.clock import LoopClock, SystemClock

    state = _state_of(request.node)
    if state.realtime:
        return SystemClock()
    return LoopClock(datetime(2026, 1, 1, tzinfo=UTC), state.loop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "random" in getattr(item, "fixturenames", ()):
        seed = _session_seed(item.config)
        report.sections.append(("seed", f"replay with {_SEED_OPTION}={seed}"))
    return report
