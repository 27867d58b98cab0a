"""Which schema the result of each verb has."""

from tiltmeter.runs.compare_result import CompareResult
from tiltmeter.runs.connect_result import ConnectResult
from tiltmeter.runs.direction_result import DirectionResult
from tiltmeter.runs.forecast_result import ForecastResult
from tiltmeter.runs.judge_result import JudgeResult
from tiltmeter.runs.ranking_result import RankingResult
from tiltmeter.runs.results import AuditResult, DemoResult, Result
from tiltmeter.runs.spectrum_result import SpectrumResult
from tiltmeter.runs.steer_result import SteerResult
from tiltmeter.runs.transfer_result import TransferResult
from tiltmeter.runs.tune_result import TuneResult

RESULTS: dict[str, type[Result]] = {
    "audit": AuditResult,
    "compare": CompareResult,
    "connect": ConnectResult,
    "demo": DemoResult,
    "direction": DirectionResult,
    "forecast": ForecastResult,
    "judge": JudgeResult,
    "rank-examples": RankingResult,
    "spectrum": SpectrumResult,
    "steer": SteerResult,
    "transfer": TransferResult,
    "tune": TuneResult,
}
