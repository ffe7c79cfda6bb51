"""What nobody should do, and some do: one's own greenlets inside fibers, blocking finalizers, endless recursion.

Each is a program of its own, for the failure would be a crash.  None may hang or end by a signal; where swapco cannot
do what it is asked for, it says so.
"""

from __future__ import annotations

import pytest
from helpers import run_program


def outcome(source: str, *flags: str) -> str:
    """What a program prints; it must end well."""
    ended = run_program(source, *flags, timeout_s=60)
    assert ended.returncode == 0, f"ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert "Fatal" not in ended.stderr, ended.stderr
    return ended.stdout


# ------------------------------------------------------------------------------------ greenlets of one's own


def test_a_greenlet_inside_a_fiber_may_block() -> None:
    """The switch remembers the greenlet that was running: when greenlets carry the fibers, too."""
    assert (
        outcome(
            """
            import greenlet, swapco
            def main():
                def inner(name):
                    got = [name]
                    for _ in range(3):
                        swapco.sleep(0)
                        got.append(greenlet.getcurrent().parent.switch(name))
                    swapco.sleep(0.001)
                    return got
                one, two = greenlet.greenlet(inner), greenlet.greenlet(inner)
                print(one.switch("one"), two.switch("two"))
                for n in range(3):
                    swapco.sleep(0)
                    print(one.switch(n), two.switch(-n))
                print(one.dead, two.dead)
            swapco.run(main, switch="greenlet")
            """
        )
        == "one two\none two\none two\n['one', 0, 1, 2] ['two', 0, -1, -2]\nTrue True\n"
    )


def test_the_fibers_own_greenlet_blocks_while_another_of_it_is_suspended() -> None:
    """And goes on where it blocked, not in the other."""
    assert (
        outcome(
            """
            import greenlet, swapco
            log = []
            def main():
                me = swapco.current_fiber()
                def wake():
                    for n in range(8):
                        swapco.resume(me, n)
                        swapco.sleep(0)
                waker = swapco.spawn(wake)
                log.append(("own", swapco.block()))
                def inner():
                    log.append(("inner", swapco.block()))
                    parent.switch()
                    log.append(("inner again", swapco.block()))
                parent = greenlet.getcurrent()
                g = greenlet.greenlet(inner)
                g.switch()
                log.append(("own", swapco.block()))
                g.switch()
                log.append(("own", swapco.block()))
                waker.cancel()
            swapco.run(main, switch="greenlet")
            print(log)
            """
        )
        == "[('own', 0), ('inner', 1), ('own', 2), ('inner again', 3), ('own', 4)]\n"
    )


@pytest.mark.parametrize("runs", ["swapco.sleep", "swapco.block", "swapco.current_fiber().get_loop().time"])
def test_a_greenlet_without_a_python_frame(runs: str) -> None:
    """A compiled function is what the greenlet runs."""
    argument = {"swapco.sleep": "0.001", "swapco.block": "None"}.get(runs, "")
    assert (
        outcome(
            f"""
            import greenlet, swapco
            def main():
                me = swapco.current_fiber()
                swapco.spawn(lambda: (swapco.sleep(0.002), swapco.resume(me)))
                g = greenlet.greenlet({runs})
                g.switch({argument})
                print(g.dead)
                swapco.sleep(0.005)
            swapco.run(main, switch="greenlet")
            """
        )
        == "True\n"
    )


def test_a_greenlet_that_is_collected_while_it_is_suspended_in_a_block() -> None:
    """GreenletExit unwinds it; the fiber and the scheduler go on."""
    assert (
        outcome(
            """
            import gc, greenlet, swapco
            log = []
            def main():
                def inner():
                    try:
                        greenlet.getcurrent().parent.switch("suspended")
                    except greenlet.GreenletExit:
                        log.append("unwound")
                        try:
                            swapco.sleep(0)
                            log.append("slept")
                        except BaseException as error:
                            log.append(type(error).__name__)
                g = greenlet.greenlet(inner)
                log.append(g.switch())
                del g
                gc.collect()
                swapco.sleep(0)
                log.append("main goes on")
                return 7
            log.append(swapco.run(main, switch="greenlet"))
            print(log)
            """
        )
        == "['suspended', 'unwound', 'slept', 'main goes on', 7]\n"
    )


def test_a_greenlet_that_belongs_to_another_fiber() -> None:
    """A fiber continues a greenlet that another fiber made and left: it runs as the fiber that runs.

    With native stacks that is forbidden, and cannot be seen from outside.
    """
    text = outcome(
        """
        import greenlet, swapco
        made = []
        def makes():
            def inner():
                greenlet.getcurrent().parent.switch()
                made.append(swapco.current_fiber().name)
            g = greenlet.greenlet(inner)
            g.switch()
            made.append(g)
            swapco.block()
        def main():
            maker = swapco.spawn(makes, name="maker")
            swapco.sleep(0)
            g = made.pop()
            g.parent = greenlet.getcurrent()
            g.switch()
            print(made, g.dead)
            swapco.resume(maker)
            maker.join()
        swapco.run(main, switch="greenlet")
        """
    )
    assert text == "['main'] True\n"


@pytest.mark.parametrize(
    "wait",
    [
        "swapco.sleep(0)", "swapco.sleep(0.001)", "swapco.block()", "swapco.block(0.001)", "swapco.spawn(int).join()",
        "swapco.switch_to(swapco.spawn(int))", "swapco.Semaphore(0).acquire()", "swapco.Queue().get()",
        "swapco.Event().wait()", "swapco.wait([swapco.spawn(int)])", "swapco.gather(int, int)",
        "swapco.await_(asyncio.sleep(0.001))", "swapco.await_(asyncio.get_running_loop().create_future())",
        "left.recv(1)", "group_of_one()",
    ],
)  # fmt: skip
def test_waiting_inside_a_greenlet_is_refused_with_native_stacks(wait: str) -> None:
    """RuntimeError, before anything has changed: the greenlet, the fiber and the scheduler go on, and may wait."""
    assert (
        outcome(
            f"""
            import asyncio, greenlet, swapco
            from swapco import socket
            def group_of_one():
                with swapco.TaskGroup() as group:
                    group.spawn(int)
            def main():
                left, right = socket.socketpair()
                def inner(outer):
                    try:
                        {wait}
                    except BaseException as error:
                        # a group wraps what its body raises
                        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
                        text = str(error)
                        log.append((type(error), 'switch="greenlet"' in text, "SWAPCO_SWITCH" in text))
                    return outer.switch("suspended")
                def body():
                    for _ in range(3):
                        g = greenlet.greenlet(inner)
                        log.append(g.switch(greenlet.getcurrent()))
                        log.append(g.switch("end"))
                        assert g.dead
                        swapco.sleep(0)
                        swapco.sleep(0.001)
                log = []
                fibers = [swapco.spawn(body) for _ in range(3)]
                for fiber in fibers:
                    fiber.join()
                assert log == [(RuntimeError, True, True), "suspended", "end"] * 9, log
                # nothing is left half-way
                swapco.sleep(0.01)
                assert swapco.all_fibers() == {{swapco.current_fiber()}}
                left.close()
                right.close()
            swapco.run(main, switch="native")
            print("end")
            """
        )
        == "end\n"
    )


def test_greenlets_that_do_not_wait_run_inside_fibers() -> None:
    """Made, switched between and finished by one fiber, among its waits: whatever carries the fibers."""
    assert (
        outcome(
            """
            import greenlet, swapco
            def body(n):
                def counting(start):
                    got = start
                    while got is not None:
                        got = outer.switch(got + n)
                    return "counted"
                outer = greenlet.getcurrent()
                one, two = greenlet.greenlet(counting), greenlet.greenlet(counting)
                got = [one.switch(1), two.switch(2)]
                for k in range(3):
                    swapco.sleep(0)
                    got += [two.switch(k), one.switch(k)]
                swapco.sleep(0.001)
                return got + [one.switch(None), two.switch(None), one.dead and two.dead]
            def main():
                for n, fiber in enumerate([swapco.spawn(body, n) for n in range(20)]):
                    expected = [1 + n, 2 + n, n, n, 1 + n, 1 + n, 2 + n, 2 + n, "counted", "counted", True]
                    assert fiber.join() == expected, fiber
                print("end")
            swapco.run(main)
            """
        )
        == "end\n"
    )


def test_what_does_not_have_to_wait_works_inside_a_greenlet() -> None:
    """Only the wait itself is refused: a token, a free lock, an item that is there, a done fiber are not one."""
    assert (
        outcome(
            """
            import greenlet, swapco
            def main():
                done = swapco.spawn(lambda: 5)
                done.join()
                queue, lock, event = swapco.Queue(), swapco.Lock(), swapco.Event()
                queue.put(1)
                event.set()
                def inner():
                    swapco.resume(swapco.current_fiber(), "token")
                    with lock:
                        event.wait()
                        return swapco.block(), queue.get(), done.join(), swapco.spawn(lambda: 7)
                *got, spawned = greenlet.greenlet(inner).switch()
                print(got, spawned.join())
            swapco.run(main)
            """
        )
        == "['token', 1, 5] 7\n"
    )


def test_the_native_hub_runs_in_the_main_greenlet() -> None:
    """run() inside a greenlet takes greenlets; where native stacks are asked for, it is refused before main runs."""
    assert (
        outcome(
            """
            import greenlet, os, swapco
            os.environ.pop("SWAPCO_SWITCH", None)
            def inner(switch):
                return swapco.run(lambda: (swapco.sleep(0.001), switch)[1], switch=switch)
            try:
                greenlet.greenlet(inner).switch("native")
            except RuntimeError as error:
                print("refused", 'greenlet' in str(error))
            for switch in ("greenlet", None):
                print(greenlet.greenlet(inner).switch(switch), inner(switch), inner("native"))
            """
        )
        == "refused True\ngreenlet greenlet native\nNone None native\n"
    )


# ---------------------------------------------------------------------------------------------- finalizers


@pytest.mark.parametrize("call", ["swapco.sleep(0)", "swapco.block()", "swapco.spawn(int).join()", "lock.acquire()"])
def test_a_finalizer_that_blocks_while_its_fiber_ends(call: str) -> None:
    """NotInFiber, reported as every error of a finalizer is; the scheduler goes on."""
    text = outcome(
        f"""
        import swapco, sys
        reports = []
        sys.unraisablehook = lambda report: reports.append(type(report.exc_value).__name__)
        lock = swapco.Semaphore(0)
        class Last:
            def __del__(self):
                {call}
        def body(last):
            swapco.sleep(0)
        def main():
            fibers = [swapco.spawn(body, Last()) for _ in range(3)]
            swapco.resume(fibers[0], Last())
            swapco.wait(fibers)
            swapco.sleep(0)
            rest = swapco.all_fibers() - {{swapco.current_fiber()}}
            swapco.wait(rest) if rest else None
        swapco.run(main)
        print(sorted(set(reports)), len(reports))
        """
    )
    assert text == "['NotInFiber'] 4\n"


def test_a_generator_that_is_finalised_in_another_fiber() -> None:
    """Its finally block blocks the fiber that drops it; in the collector's hands it cannot."""
    assert (
        outcome(
            """
            import gc, swapco, sys
            log = []
            def report(unraisable):
                log.append(type(unraisable.exc_value).__name__)
            sys.unraisablehook = report
            def generator():
                try:
                    yield 1
                finally:
                    log.append("finally")
                    swapco.sleep(0)
                    log.append(swapco.current_fiber().name)
            made = []
            def makes():
                g = generator()
                next(g)
                made.append(g)
            def main():
                swapco.spawn(makes, name="maker").join()
                swapco.spawn(made.clear, name="dropper").join()
                g = generator()
                next(g)
                cycle = [g]
                cycle.append(cycle)
                del g, cycle
                gc.collect()
                swapco.sleep(0.001)
            swapco.run(main)
            print(log)
            """
        )
        == "['finally', 'dropper', 'finally', 'RuntimeError']\n"
    )


def test_collecting_garbage_inside_fibers() -> None:
    """With a collection at every step, among fibers that are parked, done, cancelled and in cycles."""
    assert (
        outcome(
            """
            import gc, swapco
            def body(n):
                me = [swapco.current_fiber()]
                me.append(me)
                for _ in range(5):
                    swapco.sleep(0)
                    gc.collect()
                if n % 3 == 0:
                    swapco.block()
                return n
            def main():
                fibers = [swapco.spawn(body, n) for n in range(30)]
                fibers.append(fibers)
                swapco.sleep(0)
                for fiber in fibers[:30:3]:
                    swapco.sleep(0)
                swapco.sleep(0.01)
                for fiber in fibers[:30:3]:
                    fiber.cancel() if fiber.state == "BLOCKED" else swapco.resume(fiber)
                fibers.pop()
                swapco.wait(fibers)
                print(sum(fiber.cancelled() for fiber in fibers))
            gc.set_threshold(5, 2, 2)
            swapco.run(main)
            gc.collect()
            """
        )
        == "10\n"
    )


# --------------------------------------------------------------------------------------- recursion, tracing


def test_a_recursion_error_ends_the_recursion_not_the_fiber() -> None:
    """Python frames, and C frames in between; other fibers have limits of their own."""
    assert (
        outcome(
            """
            import swapco
            def python(n=0):
                return python(n + 1)
            class Deep:
                def __repr__(self):
                    return repr([Deep()])
            def body():
                for _ in range(3):
                    for call in (python, lambda: repr(Deep())):
                        try:
                            call()
                        except RecursionError:
                            pass
                        swapco.sleep(0)
                return "went on"
            def main():
                print({f.join() for f in [swapco.spawn(body) for _ in range(5)]})
            swapco.run(main)
            """
        )
        == "{'went on'}\n"
    )


def test_blocking_deep_inside_a_recursion() -> None:
    """The whole stack is parked, many at once, and continued."""
    assert (
        outcome(
            """
            import swapco
            def dive(n):
                if n:
                    return 1 + dive(n - 1)
                swapco.sleep(0.001)
                swapco.sleep(0)
                return 0
            def main():
                print({f.join() for f in [swapco.spawn(dive, 800) for _ in range(50)]})
            swapco.run(main)
            """
        )
        == "{800}\n"
    )


@pytest.mark.parametrize("tracer", ["settrace", "setprofile"])
def test_a_tracer_is_active(tracer: str) -> None:
    """sys.settrace and sys.setprofile see fibers run, and nothing breaks."""
    text = outcome(
        f"""
        import sys, swapco
        names = set()
        def trace(frame, event, arg):
            names.add(frame.f_code.co_name)
            return trace
        def body(n):
            for _ in range(3):
                swapco.sleep(0)
            return n
        def main():
            sys.{tracer}(trace)
            try:
                return sum(swapco.spawn(body, n).join() for n in range(10))
            finally:
                sys.{tracer}(None)
        print(swapco.run(main))
        """
    )
    assert text == "45\n"


def test_a_dump_of_the_python_stacks() -> None:
    """faulthandler's, from a fiber, while others are parked; and dump_fibers."""
    ended = run_program(
        """
        import faulthandler, sys, swapco
        def parked():
            swapco.block()
        def main():
            fibers = [swapco.spawn(parked, name=f"parked {n}") for n in range(3)]
            swapco.sleep(0)
            faulthandler.dump_traceback(sys.stderr)
            swapco.dump_fibers()
            for fiber in fibers:
                swapco.resume(fiber)
        swapco.run(main)
        """
    )
    assert ended.returncode == 0, ended
    assert "in main" in ended.stderr
    assert ended.stderr.count("in parked") == 3


# ------------------------------------------------------------------------------- threads, abandoned loops


def test_loops_in_several_threads() -> None:
    """Each thread has a hub, stacks and a pool of its own; they end, and others come."""
    assert (
        outcome(
            """
            import gc, threading, swapco
            done = []
            def main(n):
                for _ in range(5):
                    swapco.wait([swapco.spawn(swapco.sleep, 0) for _ in range(20)])
                    swapco.sleep(0.0005)
                done.append(n)
            for _ in range(3):
                threads = [threading.Thread(target=swapco.run, args=(main, n)) for n in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                gc.collect()
            print(len(done))
            """
        )
        == "12\n"
    )


def test_fibers_whose_thread_has_ended() -> None:
    """Their loop was not closed: they are collected, or kept, from another thread, without a crash."""
    assert (
        outcome(
            """
            import gc, threading, warnings, swapco
            warnings.simplefilter("ignore", ResourceWarning)
            kept = []
            def thread():
                loop = swapco.new_event_loop()
                async def main():
                    fibers = [swapco.spawn(swapco.block) for _ in range(5)]
                    import asyncio
                    await asyncio.sleep(0.001)
                    kept.extend(fibers)
                loop.run_until_complete(main())
            t = threading.Thread(target=thread)
            t.start()
            t.join()
            gc.collect()
            print([fiber.state for fiber in kept])
            # nobody will run them any more: no crash, and no wait
            print([swapco.resume(fiber) for fiber in kept], [fiber.cancel() for fiber in kept])
            del kept[:]
            gc.collect()
            print(swapco.run(lambda: swapco.spawn(int).join()))
            """
        )
        == f"{['BLOCKED'] * 5}\n{[True] * 5} {[True] * 5}\n0\n"
    )


def test_a_loop_that_is_abandoned_without_close() -> None:
    """Again and again, with fibers in every state."""
    assert (
        outcome(
            """
            import asyncio, gc, warnings, swapco
            warnings.simplefilter("ignore", ResourceWarning)
            def body():
                try:
                    swapco.block()
                finally:
                    pass
            for n in range(5):
                loop = swapco.new_event_loop()
                async def main():
                    swapco.spawn(body)
                    swapco.spawn(swapco.sleep, 3600)
                    await asyncio.sleep(0.001)
                    swapco.spawn(body)
                loop.run_until_complete(main())
                del loop
                gc.collect()
            print("end")
            """,
            "-W",
            "ignore",
        )
        == "end\n"
    )


def test_running_the_loop_from_inside_a_fiber() -> None:
    """An error, and the loop goes on."""
    assert (
        outcome(
            """
            import asyncio, swapco
            def main():
                loop = asyncio.get_running_loop()
                try:
                    loop.run_forever()
                except RuntimeError as error:
                    print("refused")
                scheduler = swapco.current_fiber().scheduler
                for call in (scheduler.drain_from_loop, scheduler.bind):
                    try:
                        call()
                    except RuntimeError:
                        print("refused")
                swapco.sleep(0.001)
                print(swapco.spawn(int).join())
            swapco.run(main)
            """
        )
        == "refused\nrefused\nrefused\n0\n"
    )


def test_a_main_thread_that_exits_while_fibers_of_a_daemon_thread_run() -> None:
    """Interpreter exit with a loop running in a daemon thread: no crash."""
    assert (
        outcome(
            """
            import threading, time, swapco
            def main():
                started.set()
                while True:
                    swapco.sleep(0.0001)
            started = threading.Event()
            threading.Thread(target=swapco.run, args=(main,), daemon=True).start()
            started.wait()
            time.sleep(0.01)
            print("end")
            """
        )
        == "end\n"
    )
