"""How pages are written: from jinja templates that lie in a room, over those that all rooms share."""

import jinja2


def page_templates(room: str, folder: str) -> jinja2.Environment:
    """The templates in a folder of a room (`jax_sft.…`); values are escaped, unknown names are errors.

    They find `base.html.jinja` (a page to extend) and `base.css` (how every page of ours looks) too.
    """
    places = (jinja2.PackageLoader(room, folder), jinja2.PackageLoader("jax_sft.pages", "templates"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(places),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja would sort the keys: benchmarks and runs keep the order of the study.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return environment
