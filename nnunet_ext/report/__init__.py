"""The report: one HTML file that needs nothing else."""

from nnunet_ext.metrics.published import Published
from nnunet_ext.report.build import build_report, check_file
from nnunet_ext.report.data import Cost, Extras

__all__ = ["Cost", "Extras", "Published", "build_report", "check_file"]
