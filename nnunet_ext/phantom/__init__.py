"""Synthetic datasets in the download layout of the real ones, for tests and demonstrations without a download.

`lits` writes abdominal CT like LiTS, `busi` breast ultrasound like BUSI. Nothing here comes from a patient: every case
is drawn from (seed, case number).
"""
