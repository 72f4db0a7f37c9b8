import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

# Help texts are wrapped to the terminal's width; code this wide is not cut off on a page.
os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}

from gradloc import __version__  # noqa: E402

project = "gradloc"
author = "the gradloc authors"
project_copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build", "_ext"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "gradloc"
html_show_sphinx = False
html_copy_source = False
# The pages load nothing from elsewhere: no intersphinx, no formula script, no web fonts.

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Types are shown in the signature; napoleon's own cross-references would point outside.
nitpicky = False
