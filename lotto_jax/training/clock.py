"""How long a phase takes: seconds and ticket-steps of its chunks, those that may have compiled apart."""

from typing import NamedTuple


class Clock(NamedTuple):
    """What the chunks of a phase took; a value, so that checkpoints can hold it.

    Attributes:
      cold_seconds, cold_steps: of chunks that may have compiled; steps are ticket-steps.
      warm_seconds, warm_steps: of the others.
    """

    cold_seconds: float = 0.0
    cold_steps: int = 0
    warm_seconds: float = 0.0
    warm_steps: int = 0

    def after(self, seconds: float, steps: int, warm: bool) -> "Clock":
        """The clock after a chunk of so many ticket-steps; `warm` if its program was compiled before."""
        if warm:
            return self._replace(warm_seconds=self.warm_seconds + seconds, warm_steps=self.warm_steps + steps)
        return self._replace(cold_seconds=self.cold_seconds + seconds, cold_steps=self.cold_steps + steps)

    @property
    def step_seconds(self) -> float:
        """Seconds of a ticket-step, without compilation where there were chunks enough to tell."""
        if self.warm_steps:
            return self.warm_seconds / self.warm_steps
        return self.cold_seconds / max(self.cold_steps, 1)

    @property
    def compilation_seconds(self) -> float:
        """Seconds that training alone does not account for; 0 where there were too few chunks to tell."""
        if not self.warm_steps:
            return 0.0
        return max(self.cold_seconds - self.cold_steps * self.step_seconds, 0.0)
