"""A machine of fake time: its clock moves only when something is called on it."""

from bench.timing.clocks import HostClock


class FakeMachine:
    """Calls take fake time; `slowness(now)` stretches them, as a machine that drifts would. The first call of
    each candidate is cold and takes `cold` seconds more. `reading` seconds pass at each look at the clock."""

    def __init__(self, cold=0.0, slowness=lambda now: 1.0, reading=0.0):
        self.time = 0.0
        self.waiting = 0.0
        self.cold, self.slowness, self.reading = cold, slowness, reading
        self.calls = []

    def now(self):
        self.time += self.reading
        return self.time

    @property
    def clock(self):
        return HostClock(now=self.now, waited=lambda: self.waiting)

    def work(self, name, seconds):
        """A callable that takes `seconds`, a number or a function of how often it was called before."""

        def call():
            before = self.calls.count(name)
            self.calls.append(name)
            took = seconds(before) if callable(seconds) else seconds
            self.time += took * self.slowness(self.time) + (self.cold if not before else 0.0)

        return call
