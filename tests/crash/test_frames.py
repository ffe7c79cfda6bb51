"""Asking for the frames of all threads, while collections of garbage let other threads have the GIL."""

from __future__ import annotations

from helpers import run_program


def test_a_collection_while_frames_are_asked_for_stops_nobody() -> None:
    """CPython's issue 106883: with ``sys._current_frames`` this program hangs on 3.11.7, two times in three."""
    ended = run_program(
        """
        import gc, sys, threading, time
        from swapco._core.frames import frames_of_threads

        def lets_others_run(phase, info):
            time.sleep(0)

        def deep(n):
            return deep(n - 1) if n else None

        def makes_frames():
            while not over:
                deep(20)

        def asks():
            for _ in range(300):
                frames = frames_of_threads()
                assert threading.get_ident() in frames

        over = False
        others = [threading.Thread(target=makes_frames) for _ in range(2)]
        threads = [threading.Thread(target=asks) for _ in range(3)]
        gc.callbacks.append(lets_others_run)
        gc.set_threshold(1)
        sys.setswitchinterval(1e-5)
        for thread in others + threads:
            thread.start()
        for thread in threads:
            thread.join()
        over = True
        for thread in others:
            thread.join()
        assert gc.isenabled()
        gc.disable()
        frames_of_threads()
        assert not gc.isenabled()
        print("all asked")
        """
    )
    assert ended.returncode == 0, ended
    assert ended.stdout == "all asked\n"
