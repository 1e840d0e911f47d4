"""Playing on while others are waited for: rollouts from environments that answer later.

The policy acts in whichever environments have answered. Where one that plays for this rollout is
waited for, the others begin the episodes of the next one, so that they are busy while the policy
learns, too. Those episodes are then learned one update later than they began, with the
log-probabilities of the policies that made their decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.learn.algorithms import ALGORITHMS, algorithm_of
from lang_agent.learn.config import LearnConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.rollout import play
from lang_agent.stepping import EnvErrors
from lang_agent.train.collect import Played, Player, Rollout, training_seeds
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_folder import Progress
from lang_agent.train.run_parts import remote_envs


def refuse_without_ratio(learn: LearnConfig) -> None:
    """Raise :class:`LangAgentError` for an algorithm that is right for decisions of the policy as
    it stands alone, and not of the one before."""
    row = algorithm_of(learn)
    if row.one_epoch or row.trust_region or row.imitates:
        takes = [
            name
            for name, other in ALGORITHMS.items()
            if not (other.one_epoch or other.trust_region or other.imitates)
        ]
        raise LangAgentError(
            f"async_envs has episodes begin an update early, and {learn.algorithm} does not weigh "
            f"by the policy that acted: choose one of {', '.join(takes)}."
        )


class AsyncPlayer(Player):
    """Plays the same episodes as a :class:`Player`, each no more than an update ahead: what has
    begun when a rollout ends belongs to the next one."""

    def __init__(self, config: TrainConfig, learn: LearnConfig, policy: LanguagePolicy) -> None:
        super().__init__(config, learn, policy, [])
        self._open = ExitStack()  # what the environments' processes end with
        self._playing: Generator[Episode, None, None] | None = None
        self._played: dict[int, Episode] = {}  # and not learned yet
        self._errors = EnvErrors(config.on_env_error)
        self._end = self._begun = 0  # the episodes' numbers that may begin, and have, end here

    def collect(
        self,
        progress: Progress,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        ahead = max(self._begun - progress.episodes, 0)
        rollout = super().collect(progress, done, errors, on_played)
        rollout.ahead = min(ahead, len(rollout.episodes))
        return rollout

    def close(self) -> None:
        """End the environments' processes; episodes under way are played again."""
        if self._playing is not None:
            self._playing.close()
        self._open.close()
        self._playing, self._played, self.envs = None, {}, []
        self._end = self._begun = 0

    def count(self, first: int, wanted: int) -> int:
        size = self.learn.group_size or 1
        begun = -(-max(self._begun - first, 0) // size) * size
        return max(wanted, begun)

    def played(
        self,
        first: int,
        count: int,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None,
    ) -> list[Played]:
        self._end = first + 2 * count
        if self._playing is None:
            self._playing = self._begin(first)
        numbers = range(first, first + count)
        try:
            while not all(number in self._played for number in numbers):
                episode = next(self._playing)
                self._played[episode.index] = episode
                if on_played:
                    on_played(episode)
        finally:
            errors.seen += self._errors.seen
            self._errors.seen.clear()
        return [(self._played.pop(number), []) for number in numbers]

    def _begin(self, first: int) -> Generator[Episode, None, None]:
        size = self.learn.group_size or 1
        self.envs = self._open.enter_context(remote_envs(self.config))
        return play(
            self.agent(0.0),
            self.envs,
            training_seeds(self.config.seed, first // size),
            group_size=size,
            first_index=first,
            errors=self._errors,
            may_begin=self._may_begin,
        )

    def _may_begin(self, number: int) -> bool:
        if number >= self._end:
            return False
        self._begun = max(self._begun, number + 1)
        return True
