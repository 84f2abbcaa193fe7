"""What a client may ask for. Names are TRL's and PEFT's where those have one."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_RANK = 4096
MAX_CONTEXT = 131_072
MAX_CHILDREN = 256
MAX_HELD_OUT_ROWS = 2_000
"""More would cost time at every checkpoint and tell L_ft no better."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


Name = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]+$")]
Revision = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._/-]+$")]
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]

DatasetFormat = Literal["auto", "messages", "prompt_completion", "alpaca", "preference", "text"]


class Dataset(Strict):
    """Data to fine-tune on: a hub id, or a file under an allowed root."""

    path: Name = Field(examples=["Open-Orca/OpenOrca", "orca-sample.jsonl"])
    name: Name | None = Field(None, description="Hub configuration name.")
    revision: Revision | None = None
    split: Name = "train"
    format: DatasetFormat = "auto"


class Lora(Strict):
    r: int = Field(16, ge=1, le=MAX_RANK)
    lora_alpha: float | None = Field(
        None, gt=0, le=65_536, description="null: 1 under rsLoRA (gamma = 1/sqrt(r)), else r."
    )
    target_modules: (
        Literal["all-linear"]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128)]],
            Field(min_length=1, max_length=64),
        ]
    ) = "all-linear"
    use_rslora: bool = True
    lora_dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def alpha(self) -> float:
        """`lora_alpha`, resolved."""
        if self.lora_alpha is not None:
            return self.lora_alpha
        return 1.0 if self.use_rslora else float(self.r)


class Training(Strict):
    max_steps: int = Field(260, ge=1, le=1_000_000)
    batch_size: int = Field(32, ge=1, le=4096, description="Effective; rows per update.")
    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    max_length: int = Field(512, ge=2, le=MAX_CONTEXT)
    learning_rate: float = Field(5e-5, gt=0, le=10)
    optim: Literal["adafactor", "adamw_torch"] = "adafactor"
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = (
        "constant_with_warmup"
    )
    warmup_steps: int = Field(10, ge=0, le=1_000_000)
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0, le=1e6)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    held_out: float = Field(
        0.05, gt=0, le=0.5, description="Share of rows kept to measure L_ft; 2,000 at most."
    )
    seed: int = Field(17, ge=0, le=2**31 - 1)
    loss_on: Literal["auto", "completion", "all"] = "auto"
    checkpoints: (
        Literal["log-spaced", "final"]
        | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=200)]
    ) = Field("log-spaced", description="Steps at which the adapter is kept and measured.")
    lora: Lora = Lora()

    @field_validator("micro_batch_size")
    @classmethod
    def divides_batch(cls, value: int | str, info: object) -> int | str:
        batch = getattr(info, "data", {}).get("batch_size")
        if isinstance(value, int) and batch is not None and batch % value:
            raise ValueError(f"{value} does not divide batch_size {batch}")
        return value

    @field_validator("checkpoints")
    @classmethod
    def within_run(cls, value: str | list[int], info: object) -> str | list[int]:
        last = getattr(info, "data", {}).get("max_steps")
        if isinstance(value, list) and last is not None and max(value) > last:
            raise ValueError(f"step {max(value)} is past max_steps {last}")
        return value if isinstance(value, str) else sorted(set(value))


class Evaluation(Strict):
    corpus: Name = Field(
        "wikitext-103", description="`wikitext-103`, a hub id, or a file under an allowed root."
    )
    split: Name = "test"
    context: int = Field(512, ge=2, le=MAX_CONTEXT, description="Tokens in a window, BOS included.")
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    at: Literal["checkpoints", "final"] = "checkpoints"
    reverse: bool = Field(False, description="Also KL(tuned || base).")


class FinetuneSpec(Strict):
    """Fine-tune with LoRA, then measure forgetting at every kept checkpoint."""

    type: Literal["finetune"] = "finetune"
    base_model: Name = Field(examples=["Qwen/Qwen3-0.6B"])
    revision: Revision | None = None
    dataset: Dataset
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    metadata: Metadata = {}


class SweepSpec(Strict):
    """One finetune per (rank, seed, learning rate); the law is fitted over all of them."""

    type: Literal["sweep"]
    base_model: Name
    revision: Revision | None = None
    dataset: Dataset
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    metadata: Metadata = {}
    ranks: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_RANK)]], Field(min_length=1, max_length=32)
    ] = [8, 16, 32, 64, 128, 256]
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=32)
    ] = [17]
    learning_rates: (
        Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=1, max_length=16)]
        | None
    ) = None

    @model_validator(mode="after")
    def not_too_many(self) -> Self:
        n = len(set(self.ranks)) * len(set(self.seeds)) * len(set(self.learning_rates or [0.0]))
        if n > MAX_CHILDREN:
            field = "ranks" if self.learning_rates is None else "learning_rates"
            said = f"{n} children; a sweep has at most {MAX_CHILDREN}"
            fault = PydanticCustomError("too_many_children", said)
            raise ValidationError.from_exception_data(
                type(self).__name__, [{"type": fault, "loc": (field,), "input": n}]
            )
        return self

    def children(self) -> list[FinetuneSpec]:
        """One finetune spec per distinct (learning rate, seed, rank), in that nesting."""
        body = self.model_dump(exclude={"type", "ranks", "seeds", "learning_rates"})
        specs = []
        for rate in dict.fromkeys(self.learning_rates or [self.training.learning_rate]):
            for seed in dict.fromkeys(self.seeds):
                for rank in dict.fromkeys(self.ranks):
                    spec = FinetuneSpec.model_validate(body)
                    spec.training.learning_rate = rate
                    spec.training.seed = seed
                    spec.training.lora.r = rank
                    specs.append(spec)
        return specs


class JobAdapter(Strict):
    """A checkpoint that a job of ours kept. `step: null` is its last one."""

    job: Annotated[str, Field(pattern=r"^job_[0-9A-Za-z]{26}$")]
    step: int | None = Field(None, ge=1)


class PathAdapter(Strict):
    """A PEFT adapter, or a full model of the same vocabulary, under an allowed root."""

    path: Name


class UploadedAdapter(Strict):
    """A PEFT adapter that came by `POST /adapters`."""

    id: Annotated[str, Field(pattern=r"^adp_[0-9A-Za-z]{26}$")]


class EvaluateSpec(Strict):
    """Measure adapters that exist already, all against one pass of the base."""

    type: Literal["evaluate"]
    base_model: Name
    revision: Revision | None = None
    adapters: Annotated[
        list[JobAdapter | PathAdapter | UploadedAdapter], Field(min_length=1, max_length=64)
    ]
    evaluation: Evaluation = Evaluation()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(17, ge=0, le=2**31 - 1)
    metadata: Metadata = {}


def finetune_unless_said(body: Any) -> Any:
    """A body without `type` is a finetune."""
    return {"type": "finetune", **body} if isinstance(body, dict) else body


JobSpec = Annotated[
    Annotated[FinetuneSpec | EvaluateSpec | SweepSpec, Field(discriminator="type")],
    BeforeValidator(finetune_unless_said),
]
Runnable = FinetuneSpec | EvaluateSpec
"""What a worker executes; a sweep is never claimed."""
