"""Laws: list, show, fit, ask."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from service.pictures import Kind, render
from service.routes.csv_body import DOCUMENTED, CsvOrJson
from service.routes.wiring import After, Book, LawId, Limit
from service.schemas.laws import FitRequest, Form, Law, LawPage, Laws, Metric
from service.schemas.questions import Inverse, Plan, PlanRequest, Prediction, PredictRequest
from service.scopes import Scope, needs

router = APIRouter(tags=["laws"])
from_file = APIRouter(route_class=CsvOrJson)
READ = needs(Scope.LAWS_READ)
WRITE = needs(Scope.LAWS_WRITE)

MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
Text = Annotated[str | None, Query(max_length=512)]
Versions = Annotated[
    bool, Query(description="Every law that is stored, superseded ones too; none is fitted now.")
]


@router.get("/laws", operation_id="list_laws", openapi_extra=READ)
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


@router.get("/laws/{law_id}", operation_id="show_law", openapi_extra=READ)
def show_law(law_id: LawId, book: Book) -> Law:
    return book.law(law_id)


@from_file.post(
    "/laws", status_code=201, operation_id="fit_law", openapi_extra={**DOCUMENTED, **WRITE}
)
def fit_law(request: FitRequest, book: Book) -> Laws:
    """Fit over `points`, or over the stored jobs that match `filter`.

    As text/csv: a header line that names fields of a point, then one point per line.
    """
    return book.fit(request)


@router.get(
    "/laws/{law_id}/plot.{picture_format}",
    operation_id="law_plot",
    openapi_extra=READ,
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}, "image/png": {}}}},
)
def law_plot(
    law_id: LawId,
    picture_format: Annotated[Literal["svg", "png"], Path()],
    book: Book,
    kind: Annotated[Kind | None, Query(description="Default: what the form is drawn over.")] = None,
    limit: Annotated[
        float | None, Query(ge=0, le=1e4, description="A line at so many nats.")
    ] = None,
    width: Annotated[int, Query(ge=320, le=2000, description="Pixels; PNG has twice.")] = 760,
) -> Response:
    """Data, fit, its 95 % band, and in grey what lies beyond the fitted points."""
    drawn = render(book.picture(law_id, kind=kind, limit=limit), picture_format, width=width)
    return Response(drawn, media_type=MEDIA_TYPES[picture_format])


router.include_router(from_file)


@router.post("/laws/{law_id}/predict", operation_id="predict", openapi_extra=READ)
def predict(law_id: LawId, request: PredictRequest, book: Book) -> Prediction | Inverse:
    """Forgetting at a rank and step, or at a fine-tuning loss; or, given `max_forgetting`, how far
    training may go."""
    return book.predict(law_id, request)


@router.post("/laws/{law_id}/plan", operation_id="plan", openapi_extra=READ)
def plan(law_id: LawId, request: PlanRequest, book: Book) -> Plan:
    """Ranks and steps of least forgetting that reach a loss, or of least loss within a limit of
    forgetting."""
    return book.plan(law_id, request)
