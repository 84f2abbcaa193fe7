"""Every table. Times are epoch seconds, by the database's clock only."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from service.columns import FiniteDouble, FiniteJSON, epoch_now

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


Id = String(32)
Digest = String(71)
Name = String(512)


def _of_job() -> Column[str]:
    return Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("type", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("base_model", Name, nullable=False),
    Column("sweep_id", Id, ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("idempotency_key", String(255)),
    Column("spec", FiniteJSON, nullable=False),
    Column("spec_digest", Digest, nullable=False),
    Column("phase", String(32)),
    Column("progress", FiniteJSON),
    # Only rises: with lease_token it is the fence.
    Column("attempt", Integer, nullable=False, default=0),
    # Lost workers and retried faults; the budget, apart from attempt.
    Column("failures", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("lease_owner", String(255)),
    Column("lease_token", String(64)),
    Column("lease_expires_at", Double),
    # Claimable from then on.
    Column("available_at", Double, nullable=False, default=epoch_now()),
    Column("created_at", Double, nullable=False, default=epoch_now()),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("last_event", Integer, nullable=False, default=0),
    Column("error", FiniteJSON),
    Column("artifacts_prefix", Text),
    # Of a gate that has succeeded.
    Column("verdict", String(16)),
    UniqueConstraint("owner", "idempotency_key"),
    Index(None, "state", "id"),
    Index(None, "type", "id"),
    Index(None, "type", "state"),
    Index(None, "base_model", "id"),
    Index(None, "sweep_id", "id"),
    Index(None, "owner", "state"),
)

extensions = Table(
    "extensions",
    metadata,
    # A pilot goes on once at most. Apart from `jobs`, whose rows are read all the time.
    Column("pilot_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sweep_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, unique=True),
)

job_metadata = Table(
    "job_metadata",
    metadata,
    _of_job(),
    # sha256 of [key, value]: any text can be sought, at a fixed width.
    Column("pair", String(64), primary_key=True),
    Index(None, "pair", "job_id"),
)

events = Table(
    "events",
    metadata,
    _of_job(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False, default=epoch_now()),
    Column("kind", String(32), nullable=False),
    Column("data", FiniteJSON, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    _of_job(),
    Column("name", String(64), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("value", FiniteDouble),
    Column("at", Double, nullable=False, default=epoch_now()),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _of_job(),
    # The step of a training run; the adapter's name where several are measured side by side.
    Column("slot", String(600), primary_key=True),
    Column("step", Integer),
    Column("adapter", Text, nullable=False),
    Column("trainable_params", BigInteger),
    Column("rank", Integer),
    Column("train_loss", FiniteDouble),
    Column("heldout_loss", FiniteDouble),
    Column("kl", FiniteDouble),
    Column("ce_soft", FiniteDouble),
    Column("same_top", FiniteDouble),
    Column("delta_norm", FiniteDouble),
)

results = Table(
    "results",
    metadata,
    _of_job(),
    Column("attempt", Integer, nullable=False),
    Column("body", FiniteJSON, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    _of_job(),
    Column("name", Name, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Digest, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("digest", Digest, primary_key=True),
    Column("recipe", FiniteJSON, nullable=False),
    Column("base_model", Name, nullable=False, index=True),
    Column("base_digest", Digest, nullable=False),
    Column("dataset", Name, nullable=False, index=True),
    Column("dataset_digest", Digest, nullable=False),
    Column("corpus", Name, nullable=False, index=True),
    Column("corpus_digest", Digest, nullable=False),
)

points = Table(
    "points",
    metadata,
    _of_job(),
    # A job's own run has the job's id; what other trainers made, the name that the caller gave.
    Column("run", String(128), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("group", Digest, ForeignKey("groups.digest"), nullable=False, index=True),
    Column("rank", Integer),
    Column("trainable_params", BigInteger, nullable=False),
    Column("ft_loss", FiniteDouble, nullable=False),
    Column("ce_soft", FiniteDouble),
    Column("kl", FiniteDouble),
    Column("ce_hard", FiniteDouble),
    Column("learning_rate", FiniteDouble),
    Column("delta_norm", FiniteDouble),
)

laws = Table(
    "laws",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(128), nullable=False, default=""),
    Column("created_at", Double, nullable=False, default=epoch_now()),
    Column("group", Digest, index=True),
    # Of what was asked for, whichever points there were: a law supersedes the last of its series.
    Column("series", Digest, index=True),
    Column("form", String(16), nullable=False),
    Column("metric", String(16), nullable=False),
    # Of the points and of everything else that the fit depends on.
    Column("fit_digest", Digest, nullable=False),
    Column("body", FiniteJSON, nullable=False),
    UniqueConstraint("owner", "fit_digest", "form", "metric"),
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(128), nullable=False),
    # Of the two files, as `service.lora.adapter_digest` makes it.
    Column("digest", Digest, nullable=False),
    Column("base_model", Name, nullable=False, index=True),
    Column("revision", String(128)),
    Column("base_layout", Digest, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("trainable_params", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # Where the files lie in the artifact store; no two rows share one.
    Column("prefix", Text, nullable=False),
    Column("created_at", Double, nullable=False, default=epoch_now()),
    UniqueConstraint("owner", "digest", "base_layout"),
)

verdict_counts = Table(
    "verdict_counts",
    metadata,
    # Of gates as they ended. A counter: deleting a gate takes nothing away.
    Column("verdict", String(16), primary_key=True),
    Column("n", BigInteger, nullable=False),
)

tallies = Table(
    "tallies",
    metadata,
    # Counters of what results said: name, and labels as a JSON list.
    Column("name", String(64), primary_key=True),
    Column("labels", String(1024), primary_key=True),
    Column("value", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    # Also the public half of the key, by which it is looked up.
    Column("id", Id, primary_key=True),
    # HMAC-SHA256 of the secret half under the pepper.
    Column("digest", Digest, nullable=False),
    Column("owner", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("scopes", FiniteJSON, nullable=False),
    Column("created_at", Double, nullable=False, default=epoch_now()),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("state", String(16), nullable=False),
    # No foreign key: a worker may outlive the job it names.
    Column("job_id", Id),
    Column("info", FiniteJSON, nullable=False),
    Column("beaten_at", Double, nullable=False, default=epoch_now()),
)
