"""The names of the files in a run directory."""

SETTINGS = "settings.toml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
LOG = "training.log"
CURVES = "curves.png"
LAST = "last.pt"
PREVIOUS = "previous.pt"
BEST = "best.pt"
MODEL = "model.pt"
REPORT = "report.html"
LOCK = ".lock"
PICTURES = (
    CURVES,
    "comparison.png",
    "confusion.png",
    "classes.png",
    "reliability.png",
    "mistakes.png",
    "batch.png",
    "filters.png",
    "receptive-field.png",
)
FILES = (SETTINGS, ENVIRONMENT, METRICS, LOG, LAST, PREVIOUS, BEST, MODEL, REPORT, *PICTURES)
