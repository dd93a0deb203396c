"""What the workers of a cluster tell of jobs in training, kept until the driver asks: an actor, on its machine.

It imports nothing, so that its process is ready at once and small.
"""


class Mailbox:
    """Of each job, by the driver's number for it, what was told last: the machine that it is on and, once there is one,
    the stack and the fields of the epoch that `bench.executors.retry.Heard` is made of."""

    def __init__(self) -> None:
        self.told: dict[int, tuple[str, tuple]] = {}

    def hear(self, number: int, host: str, *heard: tuple) -> None:
        self.told[number] = host, heard

    def take(self) -> dict[int, tuple[str, tuple]]:
        told, self.told = self.told, {}
        return told
