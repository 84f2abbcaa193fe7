"""What a client may ask for. Names are TRL's and PEFT's where those have one."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.schemas.candidates import Candidate
from service.schemas.fields import Metadata, Name, Revision, Strict
from service.schemas.policy import Policy

MAX_RANK = 4096
MAX_CONTEXT = 131_072
MAX_CHILDREN = 256
MAX_HELD_OUT_ROWS = 2_000
"""More would cost time at every checkpoint and tell L_ft no better."""


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


MaxLength = Annotated[int, Field(ge=2, le=MAX_CONTEXT)]
HeldOut = Annotated[
    float,
    Field(gt=0, le=0.5, description="Share of rows kept to measure L_ft; 2,000 at most."),
]
LossOn = Literal["auto", "completion", "all"]


class Training(Strict):
    max_steps: int = Field(260, ge=1, le=1_000_000)
    batch_size: int = Field(32, ge=1, le=4096, description="Effective; rows per update.")
    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    max_length: MaxLength = 512
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
    held_out: HeldOut = 0.05
    seed: int = Field(17, ge=0, le=2**31 - 1)
    loss_on: LossOn = "auto"
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
    metadata: Metadata = Field({})

    @property
    def supervision(self) -> Training:
        """How rows become tokens and a held-out split."""
        return self.training


class SweepSpec(Strict):
    """One finetune per (rank, seed, learning rate); a law is fitted over all of one rate."""

    type: Literal["sweep"]
    base_model: Name
    revision: Revision | None = None
    dataset: Dataset
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    metadata: Metadata = Field({})
    ranks: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_RANK)]], Field(min_length=1, max_length=32)
    ] = Field([8, 16, 32, 64, 128, 256])
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=32)
    ] = Field([17, 18, 19])
    learning_rates: (
        Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=1, max_length=16)]
        | None
    ) = None
    pilot: bool = Field(
        False,
        description="Only the small ranks and early steps, for at most a fifth of the cost.",
    )

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

    def grid(self) -> list[FinetuneSpec]:
        """One finetune spec per distinct (seed, learning rate, rank), in that nesting, so that the
        children of the first seed span the law."""
        axes = {"type", "ranks", "seeds", "learning_rates", "pilot"}
        body = self.model_dump(exclude=axes)
        specs = []
        for seed in dict.fromkeys(self.seeds):
            for rate in dict.fromkeys(self.learning_rates or [self.training.learning_rate]):
                for rank in dict.fromkeys(self.ranks):
                    spec = FinetuneSpec.model_validate(body)
                    spec.training.learning_rate = rate
                    spec.training.seed = seed
                    spec.training.lora.r = rank
                    specs.append(spec)
        return specs


class CandidatesSpec(Strict):
    """What jobs that measure existing adapters share.

    With `dataset`, the held-out loss too: `max_length`, `loss_on` and `held_out` choose rows and
    tokens just as in a finetune's `training`.
    """

    base_model: Name
    revision: Revision | None = None
    adapters: Annotated[list[Candidate], Field(min_length=1, max_length=64)]
    dataset: Dataset | None = None
    max_length: MaxLength = 512
    loss_on: LossOn = "auto"
    held_out: HeldOut = 0.05
    evaluation: Evaluation = Evaluation()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(17, ge=0, le=2**31 - 1)
    metadata: Metadata = Field({})

    @property
    def supervision(self) -> Training:
        """As a finetune's; nothing is trained."""
        return Training(
            batch_size=1, max_length=self.max_length, loss_on=self.loss_on, held_out=self.held_out
        )

    @property
    def every_adapter(self) -> dict[str, Candidate]:
        """All that is to be scored, by the field that names it."""
        return {f"adapters.{index}": one for index, one in enumerate(self.adapters)}


class EvaluateSpec(CandidatesSpec):
    """Measure adapters that exist already, all against one pass of the base."""

    type: Literal["evaluate"]


class GateSpec(CandidatesSpec):
    """May this one candidate ship? Scores as few windows as the policy's verdict takes."""

    type: Literal["gate"] = "gate"
    adapters: Annotated[list[Candidate], Field(min_length=1, max_length=1)]
    policy: Policy

    @model_validator(mode="after")
    def as_the_policy_says(self) -> Self:
        """The policy sets corpus, split and context; another value beside it is refused."""
        for name in ("corpus", "split", "context"):
            wanted = getattr(self.policy, name)
            if wanted is None:
                continue
            given = getattr(self.evaluation, name)
            if name in self.evaluation.model_fields_set and given != wanted:
                fault = PydanticCustomError("not_as_the_policy", "the policy has another one")
                raise ValidationError.from_exception_data(
                    type(self).__name__,
                    [{"type": fault, "loc": ("evaluation", name), "input": None}],
                )
        said = {n: v for n in ("corpus", "split", "context") if (v := getattr(self.policy, n))}
        self.evaluation = Evaluation.model_validate(self.evaluation.model_dump() | said)
        return self

    @property
    def every_adapter(self) -> dict[str, Candidate]:
        """The candidate and the policy's baselines, by the field that names them."""
        named = {f"policy.baselines.{name}": one for name, one in self.policy.baselines.items()}
        return super().every_adapter | named


def finetune_unless_said(body: Any) -> Any:
    """A body without `type` is a finetune."""
    return {"type": "finetune", **body} if isinstance(body, dict) else body


JobSpec = Annotated[
    Annotated[
        FinetuneSpec | EvaluateSpec | SweepSpec | GateSpec,
        Field(
            discriminator="type",
            json_schema_extra={
                "anyOf": [{"required": ["type"]}, {"$ref": "#/components/schemas/FinetuneSpec"}]
            },
        ),
    ],
    BeforeValidator(finetune_unless_said),
]
Runnable = Annotated[FinetuneSpec | EvaluateSpec | GateSpec, Field(discriminator="type")]
"""What a worker executes; a sweep is never claimed."""
Spec = FinetuneSpec | EvaluateSpec | SweepSpec | GateSpec
"""`JobSpec` without its parser."""
