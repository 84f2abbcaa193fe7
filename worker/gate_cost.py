"""What a gate took, and what it spared."""

from collections.abc import Mapping

from service.jobs import Phase
from service.schemas.gate import GateCost
from worker.base_side import BaseSide
from worker.reader import Reader
from worker.scored import Scored


def cost_of(
    scored: Scored, side: BaseSide, reader: Reader, seconds: Mapping[str, float]
) -> GateCost:
    """Tokens of all attempts; of `seconds` per phase, scoring also holds earlier attempts'."""
    read = sum(batch.base_tokens + batch.tuned_tokens for batch in scored.batches)
    spent = sum(batch.seconds for batch in scored.batches)
    windows = reader.windows
    left = len(windows.ids) - int(windows.lengths[scored.windows].sum())
    saved = left * (len(reader.grafts.names) + (side.rows is None))
    scoring = Phase.SCORING_TUNED.value
    earlier = sum(batch.seconds for batch in scored.batches[: scored.n_resumed])
    return GateCost(
        base_forward_tokens=side.forward_tokens
        + reader.noise_tokens
        + sum(batch.base_tokens for batch in scored.batches),
        tuned_forward_tokens=sum(batch.tuned_tokens for batch in scored.batches),
        tokens_saved=saved,
        seconds={**seconds, scoring: round(seconds.get(scoring, 0.0) + earlier, 3)},
        seconds_saved=round(saved * spent / read, 3) if read else None,
    )
