"""Audits of known truth, which the audit itself is judged by."""
