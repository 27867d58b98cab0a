"""Judges: who says what an answer does. All of them stand behind one small interface."""

from tiltmeter.behaviour.judges.verdicts import Judge, JudgeOfOne, Verdict

__all__ = ["Judge", "JudgeOfOne", "Verdict"]
