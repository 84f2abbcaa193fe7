"""How often a key may call. Counted in Redis for all services together, in process without it.

A frozen Redis is asked again every few seconds only, by one request, for a twentieth of a second.
"""

import logging
import math
import threading
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import RedisError

from service.errors import RateLimited
from service.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.05
AWAY_SECONDS = 10.0
"""How long Redis is left alone after it did not answer."""


class Rate:
    """Raises RateLimited from `take` when a key has used up its requests."""

    def __init__(self, settings: Settings) -> None:
        self._limit: RateLimitItem = parse(settings.rate_limit)
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._there: SlidingWindowCounterRateLimiter | None = None
        if settings.redis_url is not None:
            shared: Storage = RedisStorage(
                settings.redis_url,
                socket_timeout=PATIENCE_SECONDS,
                socket_connect_timeout=PATIENCE_SECONDS,
            )
            self._there = SlidingWindowCounterRateLimiter(shared)
        self._away_until = 0.0
        self._asking = threading.Lock()

    def take(self, key_id: str) -> None:
        if self._there is not None and self._may_ask():
            try:
                self._hit(self._there, key_id)
                self._away_until = 0.0
                return
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + AWAY_SECONDS
                log.warning("rates are counted in process: redis: %s", type(error).__name__)
        self._hit(self._here, key_id)

    def _may_ask(self) -> bool:
        """While Redis is away, one caller in AWAY_SECONDS; nobody waits for that one."""
        with self._asking:
            now = time.monotonic()
            if now < self._away_until:
                return False
            if self._away_until:
                self._away_until = now + AWAY_SECONDS
            return True

    def _hit(self, limiter: SlidingWindowCounterRateLimiter, key_id: str) -> None:
        if limiter.hit(self._limit, key_id):
            return
        reset = limiter.get_window_stats(self._limit, key_id).reset_time
        wait = max(1, math.ceil(reset - time.time()))
        raise RateLimited(
            f"more than {self._limit}; wait {wait} s", limit=str(self._limit), retry_after=wait
        )
