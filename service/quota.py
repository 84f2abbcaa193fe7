"""What one owner may use. Refused before acceptance, with the numbers. `admin` has no quota."""

from service.errors import QuotaExceeded
from service.keys import Caller
from service.price import price_of
from service.schemas.keys import Limited
from service.schemas.spec import Spec
from service.settings import Settings
from service.store import Store


def require_affordable(spec: Spec, caller: Caller, settings: Settings) -> None:
    """Raises QuotaExceeded for a job that costs more than one job may."""
    if caller.is_admin:
        return
    price, limit = price_of(spec, settings), settings.quota_job_cost
    if price.cost > limit:
        raise QuotaExceeded(
            f"about {price.tokens:.3g} tokens through {price.parameters:.3g} parameters cost "
            f"{price.cost:.3g}; one job may cost {limit:.3g}",
            tokens=price.tokens,
            parameters=price.parameters,
            cost=price.cost,
            max_job_cost=limit,
        )


def require_space(n_bytes: int, caller: Caller, store: Store, settings: Settings) -> None:
    """Raises QuotaExceeded where `n_bytes` more of adapters would be too many."""
    if caller.is_admin:
        return
    used, limit = store.uploaded_bytes(), settings.quota_upload_bytes
    if used + n_bytes > limit:
        raise QuotaExceeded(
            f"{used} bytes of adapters are stored and {n_bytes} would come; this owner may have "
            f"{limit}: delete some",
            used_bytes=used,
            asked_bytes=n_bytes,
            max_upload_bytes=limit,
        )


def limited(caller: Caller, store: Store, settings: Settings) -> Limited:
    free = caller.is_admin
    return Limited(
        owner=caller.owner,
        scopes=sorted(caller.scopes),
        requests=None if free else settings.rate_limit,
        max_jobs=None if free else settings.quota_jobs,
        max_upload_bytes=None if free else settings.quota_upload_bytes,
        uploaded_bytes=store.uploaded_bytes(),
        max_job_cost=None if free else settings.quota_job_cost,
        max_body_bytes=settings.max_body_bytes,
        max_adapter_bytes=settings.max_adapter_bytes,
    )
