"""The configuration of Sphinx; ``nox -s docs`` builds the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import kaleden

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "kaleden"
author = "The kaleden developers"
project_copyright = author
release = kaleden.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_inline_tabs",
    "reference",
]

# MyST: links to headings, and the syntax `:::{tab} async` for tabs.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The test suite executes the examples; an example that is not valid Python is a warning here.
highlight_language = "python"

# Reference: from the docstrings, in the order of the pages, with types as the source has them.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
ALIASES = ("Backend", "Cause", "Check", "HttpAuth", "HttpClient", "Ids", "Members")
ALIASES += ("Console", "Progress", "Scenario", "Show", "TokenFunction", "Until")
autodoc_type_aliases = {name: name for name in ALIASES}
autodoc_member_order = "groupwise"
autoclass_content = "class"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Cancellation", "Cancellation")]
napoleon_use_rtype = False

nitpicky = True

html_theme = "furo"
html_title = "kaleden"
html_static_path = ["_static"]
html_css_files = ["kaleden.css"]
html_copy_source = False
html_show_sphinx = False
