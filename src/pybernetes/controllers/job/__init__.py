"""Job: pods that run to an end, counted.

`indexes` knows sets of completion indexes, `policy` what a failed pod means and when enough has
succeeded, `account` counts ended pods exactly once, `plan` decides which pods there should be and
whether the job is over; all pure. `controller` carries it out.
"""

from __future__ import annotations

from pybernetes.controllers.job.controller import JobController

__all__ = ["JobController"]
