"""Measures: functions of data only: words and topics, statistics. No model, no drawing."""
