"""Pages of one file from the templates beside this one; nothing is loaded from elsewhere."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined


def render_page(template: str, **values: object) -> str:
    """Fills a template; text is escaped, and a value that it lacks is an error."""
    environment = Environment(undefined=StrictUndefined, autoescape=True)
    path = Path(__file__).with_name(template)
    return environment.from_string(path.read_text(encoding="utf-8")).render(values)
