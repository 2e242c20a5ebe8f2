"""How Sphinx makes the site of these pages: ``make docs``."""
import importlib
import inspect
import re
from pathlib import Path

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import elektronn2

HERE = Path(__file__).parent

project = "ELEKTRONN2"
author = "the ELEKTRONN2 developers"
copyright = author
version = release = elektronn2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build", "images", "tutorials"]
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(numpy|torch|pathlib|collections)\..*")]  # no links to sites of others

html_theme = "furo"
html_title = "ELEKTRONN2"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_heading_anchors = 3  # links to headings: page.md#name-of-the-heading

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_generate = False

# Tutorials are shown with the pictures and numbers in their text; they are not run here.
if any((HERE / "tutorials").glob("*.py")):
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = dict(
        examples_dirs="tutorials", gallery_dirs="tutorials_pages", plot_gallery=False, filename_pattern=r"^$",
        within_subsection_order="ExampleTitleSortKey", thumbnail_size=(540, 130), notebook_extensions=set(),
        download_all_examples=False, show_signature=False, write_computation_times=False, remove_config_comments=True)

STARRED = re.compile(r"(``.+?``|\*\*.+?\*\*|(?<![\w*])\*[^\s*](?:[^*]*[^\s*])?\*(?!\w))|\*")
ARGUMENT = re.compile(r"([\w.]+(?:, [\w.]+)*) :(?: (.*))?")


def readable(app, what, name, obj, options, lines):
    """Docstrings as Sphinx wants them: arguments as a list, and the star of ``(b, f, *L)`` in plain text is no emphasis."""
    in_arguments = False
    result = []
    for line, after in zip(lines, [*lines[1:], ""]):
        if line == "Parameters" and after.startswith("---"):
            in_arguments = True
        elif in_arguments and (argument := ARGUMENT.fullmatch(line)):
            line = f"``{argument[1]}``" + (f"\n    {argument[2]}" if argument[2] else "")
        elif in_arguments and line.startswith("---"):
            line = ""
        elif line and not line.startswith(" "):
            in_arguments = False
        if not line.lstrip().startswith((">>>", "...", "* ")):
            line = STARRED.sub(lambda m: m[1] or r"\*", line)
        result += ["**Arguments**"] if line == "Parameters" and in_arguments else line.split("\n")
    lines[:] = result


class Entries(SphinxDirective):
    """``.. entries:: MODULE`` and names of it (default: its functions): a table, a line for each, then the docstrings."""

    required_arguments = 1
    has_content = True

    def run(self):
        path, = self.arguments
        module = importlib.import_module(path)
        names = " ".join(self.content).split() or [name for name, value in vars(module).items() if inspect.isfunction(value)
                                                   and value.__module__ == path and not name.startswith("_")]
        lines = [f".. currentmodule:: {path}", "", ".. autosummary::", "   :nosignatures:", "",
                 *(f"   {name}" for name in names), ""]
        for name in names:
            value = getattr(module, name)
            kind = "class" if isinstance(value, type) else "function" if callable(value) else "data"
            lines += [f".. auto{kind}:: {name}", *["   :no-value:"] * (kind == "data"), ""]
        self.state_machine.insert_input(StringList(lines, path), path)
        return []


def public_bases(app, name, obj, options, bases):
    """The first base with a documented name stands for private ones."""
    bases[:] = [next(c for c in getattr(base, "__mro__", (base,)) if not c.__name__.startswith("_")) for base in bases]


def by_last_name(app, env, node, contnode):
    """``TaggedShape`` in a docstring is found wherever it is documented, if there is only one of that name."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rsplit(".", 1)[-1]
    found = {(entry.docname, entry.node_id) for name, entry in env.domains.python_domain.objects.items()
             if name.rsplit(".", 1)[-1] == last and not entry.aliased}
    return make_refnode(app.builder, node["refdoc"], *found.pop(), contnode) if len(found) == 1 else None


def for_the_site(app, docname, source):
    """Pages for readers of the repository, for those of the site: ``[prediction.md](prediction.md)`` shows the title of the
    page, the empty line at the end of examples, which doctest needs, is left out, and files from outside are included."""
    if included := re.match(r"```\{include\} (.+)\n", source[0]):
        app.env.note_dependency(HERE / included[1])
        source[0] = (HERE / included[1]).read_text()
    source[0] = re.sub(r"\[\w+\.md\]\(", "[](", source[0]).replace("\n\n```\n", "\n```\n")


def without_back_links(app, pagename, templatename, context, doctree):
    """Pages of source without links to the docs: those to names that come from another module lead nowhere."""
    if pagename.startswith("_modules/"):
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app):
    app.connect("autodoc-process-bases", public_bases)
    app.connect("missing-reference", by_last_name)
    app.add_directive("entries", Entries)
    app.connect("html-page-context", without_back_links)
    app.connect("source-read", for_the_site)
    app.connect("autodoc-process-docstring", readable)
