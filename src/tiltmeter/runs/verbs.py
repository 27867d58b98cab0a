"""Which schema the result of each verb has."""

from tiltmeter.runs.ranking_result import RankingResult
from tiltmeter.runs.results import AuditResult, DemoResult, Result

RESULTS: dict[str, type[Result]] = {"audit": AuditResult, "demo": DemoResult, "rank-examples": RankingResult}
