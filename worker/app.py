"""The door for Celery's own command: `celery --app worker.app worker --pool solo`."""

from service.settings import settings
from worker.configure import configure

app = configure(settings())
