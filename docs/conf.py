"""How Sphinx makes the site of these pages: ``make docs``."""
import re
from pathlib import Path

import elektronn2

HERE = Path(__file__).parent

project = "ELEKTRONN2"
author = "the ELEKTRONN2 developers"
copyright = author
version = release = elektronn2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "images", "tutorials"]
nitpicky = True

html_theme = "furo"
html_title = "ELEKTRONN2"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_heading_anchors = 3  # links to headings: page.md#name-of-the-heading
myst_enable_extensions = ["dollarmath"]

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_generate = False

# Tutorials are shown with the pictures and numbers in their text; they are not run here.
if any((HERE / "tutorials").glob("*.py")):
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = dict(
        examples_dirs="tutorials", gallery_dirs="tutorials_pages", plot_gallery=False, filename_pattern=r"^$",
        download_all_examples=False, show_signature=False, min_reported_time=1e9, remove_config_comments=True)

STARRED = re.compile(r"(``.+?``|\*\*.+?\*\*|(?<![\w*])\*[^\s*](?:[^*]*[^\s*])?\*(?!\w))|\*", re.DOTALL)


def escape_stars(app, what, name, obj, options, lines):
    """Axes such as ``(b, f, *L)`` in plain text of a docstring are no emphasis."""
    for i, line in enumerate(lines):
        if "*" in line and not line.lstrip().startswith((">>>", "...", "* ")):
            lines[i] = STARRED.sub(lambda m: m[1] or r"\*", line)


def leave_out_missing(app, docname, source):
    """Pages that are not there yet stay out of the contents."""
    if docname == "index":
        pages = app.env.found_docs
        source[0] = "\n".join(line for line in source[0].split("\n") if not re.fullmatch(r"[\w/]+", line) or line in pages)


def setup(app):
    app.connect("source-read", leave_out_missing)
    app.connect("autodoc-process-docstring", escape_stars)
