"""Tasks on a Ray cluster. Each is put on a machine by name, with the cores, GPU and memory that it needs.

What is timed takes all cores of its machine, so that Ray puts nothing beside it, whoever else uses the cluster. Ray's
own retries are off: what was lost is begun anew by the loop that all pools share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optimize.cache import code_digest
from optimize.errors import UnavailableError, first_line
from optimize.interfaces import Progress, Silence
from optimize.machine import environment
from optimize.machine.clusters import alive, joined
from optimize.stages import STAGES
from optimize.sweep.ledger import key_of
from optimize.sweep.processes import attempt
from optimize.sweep.schedule import Ended, Machine
from optimize.sweep.tasks import Task
from optimize.sweep.work import Work
from optimize.targets import TARGETS

GIB = 2**30
MEMORY, TRAINING_MEMORY = 2 * GIB, 4 * GIB
"""What a stage needs at distilbert-base's size: the model some times over in FP32; of one that trains, also a teacher,
gradients and AdamW's two moments, and the activations of a batch."""
LOOK_SECONDS = 5.0
"""Between two looks at which machines are there."""
PROBE_SECONDS = 30.0
"""For a machine to say what it is. Its first process imports what measuring takes."""
EMPTY_SECONDS = 120.0
"""How long a cluster may be without machines, as while one is replaced."""


def check_ray() -> None:
    """Refuse where Ray is not installed."""
    if environment.version("ray") == "absent":
        raise UnavailableError("--on: ray is not installed; install distilbert-optimize[ray]")


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster says of itself."""

    version: str
    code: str
    kind: str


@dataclass
class Cluster:
    """A pool on a Ray cluster; `describe` makes work of a task."""

    describe: Callable[[Task], Work]
    progress: Progress
    known: dict[str, Machine] = field(default_factory=dict)
    resources: dict[str, dict[str, float]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    running: dict[Any, tuple[str, str]] = field(default_factory=dict)
    threads: int | None = None
    looked: float = 0.0
    seen: float = field(default_factory=time.monotonic)

    def machines(self) -> Sequence[Machine]:
        """The machines that are there, looked at every few seconds. Raises UnavailableError where none comes."""
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            self.looked = time.monotonic()
            there = {each["NodeID"]: each["Resources"] for each in alive()}
            self.known = {name: machine for name, machine in self.known.items() if name in there}
            for name, resources in there.items():
                if name not in self.gone and name not in self.known and resources.get("CPU"):
                    self._join(name, resources)
            if self.known:
                self.seen = time.monotonic()
            elif time.monotonic() - self.seen > EMPTY_SECONDS:
                raise UnavailableError("--on: the Ray cluster has no machine any more; start some, and add --resume")
        return list(self.known.values())

    def _join(self, name: str, resources: dict[str, float]) -> None:
        """Take a machine in, once it has said what it is; refuse one with other code than this."""
        node = self._ask(name)
        if node is None:
            self.gone.add(name)
            self.progress.say(f"ray: machine {name[:8]} does not answer; it is left out")
            return
        ours = environment.version(environment.DISTRIBUTION)
        if (node.version, node.code) != (ours, code_digest()):
            raise UnavailableError(
                f"--on: machine {name[:8]} of the Ray cluster has distilbert-optimize {node.version} with other code "
                f"than this, {ours}; install the same everywhere"
            )
        cores = int(resources["CPU"])
        self.resources[name] = resources
        self.known[name] = Machine(name, max(1, cores // (self.threads or cores)), node.kind)

    def _ask(self, name: str) -> Node | None:
        """What a machine says of itself; None where it does not answer."""
        import ray
        from ray.exceptions import RayError

        asked = _remote(_node, name, num_cpus=0).remote()
        try:
            node: Node = ray.get(asked, timeout=PROBE_SECONDS)
        except RayError as error:
            if "No module named" in str(error):
                raise UnavailableError(
                    f"--on: machine {name[:8]} of the Ray cluster lacks distilbert-optimize; install it there"
                ) from error
            return None
        return node

    def start(self, task: Task, machine: Machine) -> None:
        """Hand a task to Ray."""
        work = self.describe(task)
        needs = needs_of(work, task, machine, self.resources[machine.name])
        self.running[_remote(attempt_there, machine.name, **needs).remote(work)] = (task.id, machine.name)

    def wait(self) -> Sequence[Ended]:
        """Those that have ended; nothing, after some seconds, where the machines may have changed."""
        import ray

        if not self.running:
            time.sleep(1.0)
            return []
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=LOOK_SECONDS)
        return [self._ended(each) for each in ready]

    def _ended(self, reference: Any) -> Ended:
        import ray
        from ray.exceptions import RayError

        task, machine = self.running.pop(reference)
        try:
            word, what = ray.get(reference)
        except RayError as error:
            is_gone = self._ask(machine) is None
            if is_gone:
                self.gone.add(machine)
                self.known.pop(machine, None)
                self.progress.say(f"ray: machine {machine[:8]} is gone; its tasks are begun anew")
            reason = f"{type(error).__name__}: {first_line(error)}"
            return Ended(task, "lost", reason=reason, machine_gone=is_gone)
        return Ended(task, "done", value=what) if word == "done" else Ended(task, "failed", reason=what)


def needs_of(work: Work, task: Task, machine: Machine, resources: dict[str, float]) -> dict[str, Any]:
    """Cores, GPUs and memory of a task, in Ray's words; no more memory than its machine has in all."""
    cores, part = int(resources["CPU"]), work.parts[0]
    depends = frozenset[str]()
    for step in part.form.stages[: work.stages]:
        depends |= STAGES[step.stage].depends(step.params)
    memory = TRAINING_MEMORY if "training" in depends else MEMORY
    on_device = TARGETS[part.form.target].memory is not None and (task.alone or "target" in depends)
    needs: dict[str, Any] = {"num_cpus": cores if task.alone else cores // machine.slots}
    if "memory" in resources:
        needs["memory"] = min(memory, int(resources["memory"] // machine.slots))
    if on_device:
        needs["num_gpus"] = 1
    return needs


def attempt_there(work: Work) -> tuple[str, Any]:
    """What a machine of the cluster does with a task."""
    return attempt(work, Silence())


def _node() -> Node:
    return Node(environment.version(environment.DISTRIBUTION), code_digest(), key_of(environment.detect()))


def _remote(function: Callable[..., Any], node: str, **needs: Any) -> Any:
    """A function that Ray carries out on one machine, once."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(function).options(scheduling_strategy=here, max_retries=0, **needs)


@contextmanager
def ray_cluster(
    address: str, describe: Callable[[Task], Work], *, progress: Progress, threads: int | None = None
) -> Iterator[Cluster]:
    """A pool on the cluster at an address, left at the end of the block."""
    with joined(address):
        yield Cluster(describe, progress, threads=threads)
