"""Synthetic datasets in the download layout of the real ones, for tests and demonstrations without a download.

`lits` writes abdominal CT like LiTS. Nothing here comes from a patient: every case is drawn from (seed, case number).
"""
