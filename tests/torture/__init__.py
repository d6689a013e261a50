"""Fault campaign: kills, damaged files, hostile input, full disks and concurrent commands.

    python -m tests.torture --minutes 30          # also `make torture`

docs/reliability.md says what the campaign does and what its outcomes mean. Each module of this
package is one kind of fault; `campaign` schedules them and `table` reports.
"""
