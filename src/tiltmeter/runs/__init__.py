"""A run folder: what went in, what came out, and the hashes of both."""

from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_file, hash_input
from tiltmeter.runs.record import RunRecord, load_run, tool_versions
from tiltmeter.runs.saved import read_arrays, read_result, read_table, read_transcripts
from tiltmeter.runs.verify import Problem, verify

__all__ = [
    "Problem",
    "RunFolder",
    "RunRecord",
    "hash_file",
    "hash_input",
    "load_run",
    "read_arrays",
    "read_result",
    "read_table",
    "read_transcripts",
    "tool_versions",
    "verify",
]
