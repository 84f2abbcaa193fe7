"""What a client does with laws. Part of `ForgettingClient`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from forgetting_client.connection import Connection
from forgetting_client.law_wire import (
    Form,
    Inverse,
    Law,
    Metric,
    PendingLaw,
    Plan,
    Point,
    Prediction,
)
from forgetting_client.pages import object_list, pages, segment

FIT_SECONDS = 600.0
"""A fit with its judgement takes seconds, and many points take more."""


class LawMethods:
    _connection: Connection

    def laws(
        self, *, limit: int | None = None, all_versions: bool = False, **filters: str | None
    ) -> Iterator[Law]:
        """Fitted laws, newest first, at most `limit`; `all_versions`: superseded ones too.

        Filters: form, metric (default ce_soft), group, base_model, dataset, corpus.
        """
        params = {**filters, "all_versions": "true" if all_versions else None}
        found = pages(self._connection, "v1/laws", params, limit, timeout=FIT_SECONDS)
        return cast(Iterator[Law], found)

    def pending_laws(self, **filters: str | None) -> list[PendingLaw]:
        """Recipe groups with too few points for a law, and what they lack. Filters as `laws`."""
        params = {**filters, "limit": 1}
        asked = {"params": params, "timeout": FIT_SECONDS}
        found = object_list(self._connection, "pending", "GET", "v1/laws", **asked)
        return cast(list[PendingLaw], found)

    def law(self, law_id: str) -> Law:
        return cast(Law, self._connection.object("GET", _law(law_id)))

    def fit_law(
        self,
        *,
        points: Sequence[Point] | None = None,
        csv: str | bytes | None = None,
        filter: Mapping[str, str] | None = None,  # noqa: A002 - the wire's name
        metric: Metric = "ce_soft",
        forms: Sequence[Form] | None = None,
        burn_in: int | None = None,
    ) -> list[Law]:
        """Fit laws over `points`, the same as `csv` text, or the stored jobs that match `filter`.

        forms: default linear and joint. burn_in: leave out steps below it; default: the first
        20 % of each run.
        """
        how: dict[str, Any] = {"metric": metric, "burn_in": burn_in}
        how["forms"] = None if forms is None else list(forms)
        how = {name: value for name, value in how.items() if value is not None}
        if csv is None:
            body = dict(how)
            if points is not None:
                body["points"] = list(points)
            if filter is not None:
                body["filter"] = dict(filter)
            sent: dict[str, Any] = {"body": body}
        else:
            sent = {
                "params": how,
                "content": csv.encode() if isinstance(csv, str) else csv,
                "headers": {"Content-Type": "text/csv"},
            }
        asked = {**sent, "timeout": FIT_SECONDS}
        found = object_list(self._connection, "data", "POST", "v1/laws", **asked)
        return cast(list[Law], found)

    def predict(
        self,
        law_id: str,
        *,
        rank: int | None = None,
        trainable_params: int | None = None,
        step: int | None = None,
        learning_rate: float | None = None,
        delta_norm: float | None = None,
        ft_loss: float | None = None,
    ) -> Prediction:
        """Joint law: `rank` or `trainable_params`, with `step`; joint_lr: and `learning_rate`.
        Linear law: `ft_loss`."""
        asked = {
            "rank": rank,
            "trainable_params": trainable_params,
            "step": step,
            "learning_rate": learning_rate,
            "delta_norm": delta_norm,
            "ft_loss": ft_loss,
        }
        return cast(Prediction, self._ask(law_id, "predict", asked))

    def furthest(
        self,
        law_id: str,
        *,
        max_forgetting: float,
        rank: int | None = None,
        trainable_params: int | None = None,
        step: int | None = None,
        learning_rate: float | None = None,
    ) -> Inverse:
        """The largest step for a rank, the largest rank for a step, or the lowest loss of a line,
        with forgetting of at most `max_forgetting` nats per token."""
        asked = {
            "max_forgetting": max_forgetting,
            "rank": rank,
            "trainable_params": trainable_params,
            "step": step,
            "learning_rate": learning_rate,
        }
        return cast(Inverse, self._ask(law_id, "predict", asked))

    def plan(
        self,
        law_id: str,
        *,
        max_ft_loss: float | None = None,
        max_forgetting: float | None = None,
        ranks: Sequence[int] | None = None,
        learning_rates: Sequence[float] | None = None,
        max_step: int | None = None,
        limit: int | None = None,
    ) -> Plan:
        """Runs of least forgetting that reach a loss, or of least loss within a limit."""
        asked = {
            "max_ft_loss": max_ft_loss,
            "max_forgetting": max_forgetting,
            "ranks": None if ranks is None else list(ranks),
            "learning_rates": None if learning_rates is None else list(learning_rates),
            "max_step": max_step,
            "limit": limit,
        }
        return cast(Plan, self._ask(law_id, "plan", asked))

    def law_plot(
        self,
        law_id: str,
        form: Literal["svg", "png"] = "svg",
        *,
        kind: Literal["loss", "steps"] | None = None,
        limit: float | None = None,
        width: int | None = None,
    ) -> bytes:
        """The law's picture, drawn by the service; `limit` draws a line at so many nats."""
        params = {"kind": kind, "limit": limit, "width": width}
        path = f"{_law(law_id)}/plot.{form}"
        return self._connection.send("GET", path, params=params).content

    def _ask(self, law_id: str, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        body = {name: value for name, value in asked.items() if value is not None}
        path = f"{_law(law_id)}/{verb}"
        return self._connection.object("POST", path, body=body, timeout=FIT_SECONDS)


def _law(law_id: str) -> str:
    return f"v1/laws/{segment(law_id, 'law')}"
