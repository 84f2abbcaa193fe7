"""Laws: list, show, fit, ask."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.asking import answer
from service.routes.csv_body import DOCUMENTED, CsvOrJson
from service.routes.wiring import After, Book, LawId, Limit
from service.schemas.laws import (
    FitRequest,
    Form,
    Law,
    LawPage,
    Laws,
    Metric,
    Prediction,
    PredictRequest,
)

router = APIRouter(tags=["laws"])
from_file = APIRouter(route_class=CsvOrJson)

Text = Annotated[str | None, Query(max_length=512)]
Versions = Annotated[
    bool, Query(description="Every law that is stored, superseded ones too; none is fitted now.")
]


@router.get("/laws", operation_id="list_laws")
def list_laws(
    book: Book,
    base_model: Text = None,
    dataset: Text = None,
    corpus: Text = None,
    group: Text = None,
    metric: Metric = "ce_soft",
    form: Form | None = None,
    all_versions: Versions = False,
    limit: Limit = 20,
    after: After = None,
) -> LawPage:
    """One law per recipe group and form, fitted now if its points are new; see `pending`."""
    wanted = {"base_model": base_model, "dataset": dataset, "corpus": corpus, "group": group}
    listed = book.versions if all_versions else book.page
    return listed(wanted, metric=metric, form=form, limit=limit, after=after)


@router.get("/laws/{law_id}", operation_id="show_law")
def show_law(law_id: LawId, book: Book) -> Law:
    return book.law(law_id)


@from_file.post("/laws", status_code=201, operation_id="fit_law", openapi_extra=DOCUMENTED)
def fit_law(request: FitRequest, book: Book) -> Laws:
    """Fit over `points`, or over the stored jobs that match `filter`.

    As text/csv: a header line that names fields of a point, then one point per line.
    """
    return book.fit(request)


router.include_router(from_file)


@router.post("/laws/{law_id}/predict", operation_id="predict")
def predict(law_id: LawId, request: PredictRequest, book: Book) -> Prediction:
    """Forgetting at a rank (or trainable_params) and step, or at a fine-tuning loss."""
    return answer(*book.stored(law_id), request)
