"""Pictures, videos and reports of upsampled depth (extra ``report``)."""

from stdnet_core.report.page import ReportData
from stdnet_core.report.writer import write_report

__all__ = ["ReportData", "write_report"]
