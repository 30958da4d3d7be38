"""Runs that were submitted to a service: which job does what, kept below the roots of the pipelines to be followed."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rastervision.pipeline.errors import NotReadableError, RasterVisionError
from rastervision.pipeline.file_system.utils import file_to_json, list_paths, str_to_file

if TYPE_CHECKING:
    from typing import Self

    from rastervision.pipeline.run_plan import RunPlan

__all__ = ["JobState", "JobStatus", "SubmittedJob", "SubmittedRun", "root_uris_of"]

log = logging.getLogger(__name__)

#: "not run": one that it needs has failed; "unknown": the service no longer keeps the job.
JobState = Literal["waiting", "running", "done", "failed", "not run", "unknown"]


@dataclass(frozen=True)
class SubmittedJob:
    """What a service carries out for a command, or for one part of it.

    Args:
        id: Its name or number with the service.
        label: What it does, as in "predict in 20 parts".
        pipeline_id: Name of the pipeline among those of the run; empty if there is only one.
        url: Page on which the service shows it.
    """

    id: str
    label: str
    pipeline_id: str = ""
    url: str = ""

    def __str__(self) -> str:
        return f"{self.label} from {self.pipeline_id}" if self.pipeline_id else self.label


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Args:
        job: The job.
        state: Where it stands.
        detail: What the service says about it, as in "12 of 20 parts done"; may be empty.
        exit_code: That of the command, if it failed and the service tells.
        log_tail: The last lines of its log, if it failed.
    """

    job: SubmittedJob
    state: JobState
    detail: str = ""
    exit_code: int | None = None
    log_tail: Sequence[str] = ()


@dataclass(frozen=True)
class SubmittedRun:
    """A run that a service carries out.

    Args:
        runner: Name of the runner.
        name: Name of the run, as given by ``--pipeline-run-name``.
        jobs: What was submitted, in the order of the plan.
        where: What else the runner needs to find it again, such as the region.
        id: Name of the file that keeps this; those of later runs come later in alphabetical order.
    """

    runner: str
    name: str
    jobs: Sequence[SubmittedJob]
    where: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}")

    def save(self, root_uris: Iterable[str]) -> None:
        """Write it below each of the roots; where that fails, a warning tells."""
        for root_uri in root_uris:
            try:
                str_to_file(json.dumps(asdict(self), indent=1), f"{_folder(root_uri)}/{self.id}.json")
            except (RasterVisionError, OSError) as e:
                log.warning("the run cannot be followed by `rastervision status %s`: %s", root_uri, e)

    @classmethod
    def find(cls, root_uri: str, run_id: str | None = None) -> Self | None:
        """Return a run that was submitted for the pipeline with this root; the latest if it is not named.

        Raises:
            NotReadableError: There is no run of this name, or its file is damaged.
        """
        uri = f"{_folder(root_uri)}/{run_id}.json" if run_id is not None else _latest(root_uri)
        if uri is None:
            return None
        data: Any = file_to_json(uri)
        try:
            return cls(**{**data, "jobs": [SubmittedJob(**job) for job in data["jobs"]]})
        except (KeyError, TypeError) as e:
            raise NotReadableError(f"{uri} does not describe a submitted run: {e}.") from e


def _folder(root_uri: str) -> str:
    return f"{root_uri.rstrip('/')}/.rv/runs"


def _latest(root_uri: str) -> str | None:
    try:
        paths = list_paths(_folder(root_uri), ext=".json")
    except (NotReadableError, FileNotFoundError):
        return None
    return max(paths, default=None, key=lambda path: path.rpartition("/")[2])


def root_uris_of(plan: RunPlan) -> list[str]:
    """Return the roots of the pipelines of a plan."""
    return [pipeline.config.root_uri or uri.rpartition("/")[0] for uri, pipeline in plan.pipelines.items()]
