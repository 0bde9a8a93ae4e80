"""The report: one HTML file that needs nothing else."""

from nnunet_ext.report.build import build_report
from nnunet_ext.report.data import Cost, Extras, Published

__all__ = ["Cost", "Extras", "Published", "build_report"]
