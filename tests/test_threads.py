"""Who wants to be alone in a process is, and keeps nobody out for ever."""

import threading

from rtsx.threads import ReadWriteLock


def test_who_is_alone_waits_for_those_inside_and_keeps_others_out() -> None:
    turn, told = ReadWriteLock(), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def shared() -> None:
        with turn.taken(alone=False):
            told.append("shared in")
            inside.set()
            leave.wait()
            told.append("shared out")

    def alone() -> None:
        with turn.taken(alone=True):
            told.append("alone in")
            told.append("alone out")

    def late() -> None:
        with turn.taken(alone=False):
            told.append("late")

    first = threading.Thread(target=shared)
    first.start()
    inside.wait()
    second = threading.Thread(target=alone)
    second.start()
    while not turn._wanting:  # it has to be in line before the next comes
        pass
    third = threading.Thread(target=late)
    third.start()
    leave.set()
    for thread in (first, second, third):
        thread.join()
    assert told == ["shared in", "shared out", "alone in", "alone out", "late"]


def test_an_error_inside_gives_the_turn_back() -> None:
    turn = ReadWriteLock()
    for alone in (True, False, True):
        try:
            with turn.taken(alone=alone):
                raise ValueError
        except ValueError:
            pass
    with turn.taken(alone=True):
        pass
