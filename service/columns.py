"""Column types that need care, and the database's clock."""

import math
from typing import Any

from sqlalchemy import JSON, Double
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class epoch_now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock: several machines, one time."""

    type = Double()
    inherit_cache = True


@compiles(epoch_now, "postgresql")
def _postgresql_now(element: epoch_now, compiler: SQLCompiler, **kw: Any) -> str:
    # now() would stand still for the whole transaction.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(epoch_now, "sqlite")
def _sqlite_now(element: epoch_now, compiler: SQLCompiler, **kw: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


def finite(value: Any) -> Any:
    """The same JSON value with every NaN and infinity replaced by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class FiniteJSON(TypeDecorator[Any]):
    """JSON without NaN or infinity; None is SQL NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return finite(value)


class FiniteDouble(TypeDecorator[float]):
    """A float column whose NaN and infinity become NULL."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> float | None:
        return None if value is None else finite(float(value))
