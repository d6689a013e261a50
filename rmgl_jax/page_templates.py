"""Jinja environment of the package's pages."""

import jinja2


def make_environment(package: str) -> jinja2.Environment:
    """Makes the environment of the pages of a subpackage.

    Args:
        package: name of the subpackage, whose folder `templates` comes before `rmgl_jax/templates`,
            which has what all pages share.
    """
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("rmgl_jax")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
