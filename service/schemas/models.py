"""Whether a base can be worked with here."""

from pydantic import Field

from service.schemas.result import View


class ModelLine(View):
    """One thing that a base needs."""

    name: str = Field(description="name, access, tokenizer, parameters, scoring, training, disk")
    ok: bool
    found: str
    mend: str | None = Field(None, description="The setting or step that mends it.")


class ModelCheck(View):
    """Every line that could be known; what comes after the first that bars the rest is left out."""

    model: str
    revision: str | None
    ok: bool
    parameters: int | None
    trained_parameters: int | None = Field(description="By LoRA of the asked rank on all layers.")
    scoring_bytes: int | None = Field(description="GPU memory to score with, an estimate.")
    training_bytes: int | None
    disk_bytes: int | None = Field(description="Download, base pass and one run's checkpoints.")
    checks: list[ModelLine]
