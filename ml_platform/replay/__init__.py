"""Drives replayed time: by the hour through the running service, by the day through the automation conditions."""
