"""Reports: a finished run record rendered as text, one module per format.

Pure: RunRecord → str.  Never computes a verdict, never reads a clock or the environment.
"""

from __future__ import annotations

REPORTS = {
    "html": "gate.reports.html:render",
    "junit": "gate.reports.junit:render",
    "markdown": "gate.reports.markdown:render",
    "json": "gate.reports.json_report:render",
    "text": "gate.reports.text:render",
}
"""Format name → `render(record: RunRecord) -> str`.  Adding one: a module, a line here, a gold file."""
