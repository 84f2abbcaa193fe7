"""Jobs and what hangs on them, law points, laws, workers, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("dataset", sa.String(length=512), nullable=False),
        sa.Column("dataset_digest", sa.String(length=71), nullable=False),
        sa.Column("corpus", sa.String(length=512), nullable=False),
        sa.Column("corpus_digest", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_groups"),
    )
    op.create_index("ix_groups_base_model", "groups", ["base_model"])
    op.create_index("ix_groups_corpus", "groups", ["corpus"])
    op.create_index("ix_groups_dataset", "groups", ["dataset"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("sweep_id", sa.String(length=32), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("spec_digest", sa.String(length=71), nullable=False),
        sa.Column("phase", sa.String(length=32), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.String(length=255), nullable=True),
        sa.Column("lease_token", sa.String(length=64), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("artifacts_prefix", sa.Text(), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["jobs.id"], name="fk_jobs_sweep_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("owner", "idempotency_key", name="uq_jobs_owner_idempotency_key"),
    )
    op.create_index("ix_jobs_owner_state", "jobs", ["owner", "state"])
    op.create_index("ix_jobs_base_model_id", "jobs", ["base_model", "id"])
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_sweep_id_id", "jobs", ["sweep_id", "id"])
    op.create_index("ix_jobs_type_id", "jobs", ["type", "id"])
    op.create_index("ix_jobs_type_state", "jobs", ["type", "state"])
    op.create_table(
        "extensions",
        sa.Column("pilot_id", sa.String(length=32), nullable=False),
        sa.Column("sweep_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["pilot_id"], ["jobs.id"], name="fk_extensions_pilot_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["jobs.id"], name="fk_extensions_sweep_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pilot_id", name="pk_extensions"),
        sa.UniqueConstraint("sweep_id", name="uq_extensions_sweep_id"),
    )
    op.create_table(
        "laws",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("group", sa.String(length=71), nullable=True),
        sa.Column("series", sa.String(length=71), nullable=True),
        sa.Column("form", sa.String(length=16), nullable=False),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("fit_digest", sa.String(length=71), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_laws"),
        sa.UniqueConstraint(
            "owner", "fit_digest", "form", "metric", name="uq_laws_owner_fit_digest_form_metric"
        ),
    )
    op.create_index("ix_laws_group", "laws", ["group"])
    op.create_index("ix_laws_series", "laws", ["series"])
    op.create_table(
        "tallies",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.String(length=1024), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name="pk_tallies"),
    )
    op.create_table(
        "verdict_counts",
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("verdict", name="pk_verdict_counts"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("info", sa.JSON(), nullable=False),
        sa.Column("beaten_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workers"),
    )
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("base_model", sa.String(length=512), nullable=False),
        sa.Column("revision", sa.String(length=128), nullable=True),
        sa.Column("base_layout", sa.String(length=71), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("trainable_params", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint(
            "owner", "digest", "base_layout", name="uq_adapters_owner_digest_base_layout"
        ),
    )
    op.create_index("ix_adapters_base_model", "adapters", ["base_model"])
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_artifacts_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_artifacts"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.String(length=600), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("trainable_params", sa.BigInteger(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("train_loss", sa.Double(), nullable=True),
        sa.Column("heldout_loss", sa.Double(), nullable=True),
        sa.Column("kl", sa.Double(), nullable=True),
        sa.Column("ce_soft", sa.Double(), nullable=True),
        sa.Column("same_top", sa.Double(), nullable=True),
        sa.Column("delta_norm", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_checkpoints_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "slot", name="pk_checkpoints"),
    )
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "id", name="pk_events"),
    )
    op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("pair", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_job_metadata_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "pair", name="pk_job_metadata"),
    )
    op.create_index("ix_job_metadata_pair_job_id", "job_metadata", ["pair", "job_id"])
    op.create_table(
        "metrics",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_metrics_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "name", "step", name="pk_metrics"),
    )
    op.create_table(
        "points",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("run", sa.String(length=128), nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("group", sa.String(length=71), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("trainable_params", sa.BigInteger(), nullable=False),
        sa.Column("ft_loss", sa.Double(), nullable=False),
        sa.Column("ce_soft", sa.Double(), nullable=True),
        sa.Column("kl", sa.Double(), nullable=True),
        sa.Column("ce_hard", sa.Double(), nullable=True),
        sa.Column("learning_rate", sa.Double(), nullable=True),
        sa.Column("delta_norm", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["group"], ["groups.digest"], name="fk_points_group"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_points_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "run", "step", name="pk_points"),
    )
    op.create_index("ix_points_group", "points", ["group"])
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_results_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_results"),
    )


def downgrade() -> None:
    op.drop_table("extensions")
    op.drop_table("results")
    op.drop_table("points")
    op.drop_table("metrics")
    op.drop_table("job_metadata")
    op.drop_table("events")
    op.drop_table("checkpoints")
    op.drop_table("artifacts")
    op.drop_table("adapters")
    op.drop_table("keys")
    op.drop_table("workers")
    op.drop_table("verdict_counts")
    op.drop_table("tallies")
    op.drop_table("laws")
    op.drop_table("jobs")
    op.drop_table("groups")
