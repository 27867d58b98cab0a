"""What is read of a reply of an OpenAI-compatible endpoint."""

from pydantic import BaseModel, ConfigDict, Field


class _Likelihood(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    token: str
    logprob: float


class TokenLikelihoods(_Likelihood):
    """One token of a reply, and the most likely tokens in its place."""

    top_logprobs: list[_Likelihood] = []


class _Likelihoods(BaseModel):
    content: list[TokenLikelihoods] | None = None


class _Text(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Reply(BaseModel):
    """A judge's reply, as far as it is read."""

    message: _Text
    finish_reason: str | None = None
    logprobs: _Likelihoods | None = None

    @property
    def tokens(self) -> list[TokenLikelihoods]:
        """The tokens with their likelihoods; empty where the endpoint gives none."""
        return (self.logprobs and self.logprobs.content) or []


class Completion(BaseModel):
    """What an endpoint sends back."""

    choices: list[Reply] = Field(min_length=1)
