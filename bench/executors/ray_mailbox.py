"""The mailbox that workers of a Ray cluster report their progress to: an actor on the driver's machine.

It imports nothing, so that its process is ready at once and small.
"""


class Mailbox:
    """The latest report of each job, by the driver's number for it, until the driver takes it.

    A report is the worker's machine and, once there is one, the seeds and the fields of the latest epoch.
    """

    def __init__(self) -> None:
        self.reports: dict[int, tuple[str, tuple]] = {}

    def put(self, number: int, host: str, *progress: tuple) -> None:
        """Replace the report of a job."""
        self.reports[number] = host, progress

    def take(self) -> dict[int, tuple[str, tuple]]:
        """Return all new reports and forget them."""
        reports, self.reports = self.reports, {}
        return reports
