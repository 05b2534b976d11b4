"""How pages are written: from jinja templates that lie in a room."""

import jinja2


def page_templates(room: str, folder: str) -> jinja2.Environment:
    """The templates in a folder of a room (`jax_sft.…`); values are escaped, unknown names are errors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(room, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja would sort the keys: benchmarks and runs keep the order of the study.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return environment
