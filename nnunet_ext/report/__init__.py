"""The report: one HTML file that needs nothing else."""

from nnunet_ext.metrics.published import Published
from nnunet_ext.report.build import build_report, check_file, extras_of
from nnunet_ext.report.data import Cost, Extras
from nnunet_ext.report.subgroups import read_subgroups

__all__ = ["Cost", "Extras", "Published", "build_report", "check_file", "extras_of", "read_subgroups"]
