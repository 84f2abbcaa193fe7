"""What a watcher knows of a job, event by event. Pure: no terminal, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgetting_client.command.words import fraction, number
from forgetting_client.wire import Event, Job

SHOWN = {
    "train_loss": "loss",
    "heldout_loss": "L_ft",
    "kl": "kl",
    "ce_soft": "ce_soft",
    "same_top": "same_top",
}
"""Metrics worth a glance, and what they are called there."""


@dataclass
class Picture:
    status: str
    attempt: int
    phase: str | None = None
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    _begun: bool = False
    _tenth: int = 0
    _told: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job) -> "Picture":
        return cls(status="queued", attempt=0) if job["attempt"] else cls(job["status"], 0)

    def take(self, event: Event) -> str | None:
        """Learn from an event. A line, where it is worth keeping on the screen."""
        data = event["data"]
        match event["kind"]:
            case "status":
                return self._status(data)
            case "phase":
                self._turn(data.get("phase"))
            case "progress":
                self._progress(data)
            case "metric":
                if data.get("name") in SHOWN and isinstance(data.get("value"), int | float):
                    self.metrics[data["name"]] = data["value"]
            case "checkpoint":
                return self._checkpoint(data)
            case "log" | "warning":
                prefix = "warning: " if event["kind"] == "warning" else ""
                return f"{prefix}{data.get('message', '')}"
        return None

    def tenth(self) -> str | None:
        """A line for logs when a phase begins and with every tenth of its way."""
        if self.phase and not self._begun:
            self._begun = True
            return self.headline()
        if not self.total:
            return None
        tenth = int(10 * self.done / self.total)
        if tenth <= self._tenth:
            return None
        self._tenth = tenth
        fresh = {name: self.metrics[name] for name in self.metrics if self._is_news(name)}
        self._told |= fresh
        return "  ".join(part for part in (self.headline(), numbers(fresh)) if part)

    def _is_news(self, name: str) -> bool:
        return self._told.get(name) != self.metrics[name]

    def headline(self) -> str:
        """`training 140/260 steps`, or the status where there is no phase."""
        # Until its first phase, a running job is a process that imports its libraries.
        words = (self.phase or self.status.replace("running", "starting")).replace("_", " ")
        return f"{words} {self._fraction()}" if self.total else words

    def _fraction(self) -> str:
        return fraction({"done": self.done, "total": self.total, "unit": self.unit})

    def _status(self, data: dict[str, Any]) -> str:
        self.status = str(data.get("status", self.status))
        self.attempt = data.get("attempt") or self.attempt
        self._turn(None)
        words = f"{self.status}, attempt {self.attempt}" if self.attempt > 1 else self.status
        reason = data.get("reason")
        return f"{words}: {reason}" if reason else words

    def _turn(self, phase: str | None) -> None:
        self.phase, self.done, self.total, self.unit = phase, 0.0, None, ""
        self._begun, self._tenth = False, 0

    def _progress(self, data: dict[str, Any]) -> None:
        self.done, self.total = data.get("done") or 0.0, data.get("total")
        self.unit = str(data.get("unit", ""))

    def _checkpoint(self, data: dict[str, Any]) -> str | None:
        fields = ("heldout_loss", "kl", "ce_soft", "same_top")
        known = {name: data[name] for name in fields if data.get(name) is not None}
        self.metrics |= known
        self._told |= known
        where = f"step {data['step']}" if data.get("step") else str(data.get("adapter", ""))
        kept = "" if "kl" in known else "adapter kept  "
        return f"{where}: {kept}{numbers(known)}".rstrip()


def numbers(metrics: Mapping[str, float]) -> str:
    """`loss 2.346  kl 0.01235`, in the order of SHOWN."""
    return "  ".join(
        f"{label} {number(metrics[name])}" for name, label in SHOWN.items() if name in metrics
    )
