"""How many ranks share what, and which ranks form which group; without torch."""

from dataclasses import asdict, dataclass

from planner.errors import UsageError
from planner.executor.model.config import DecoderConfig, GroupedDims


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelSpec:
    """Degrees of parallelism.

    Ranks are numbered by stage, in it by replica, in it by tensor part. The ranks of
    a stage hold its experts together: ``ep`` = dp · tp / etp places, each of ``etp``
    ranks.

    Attributes
    ----------
    tp
        Ranks that divide attention and what every token passes between them.
    etp
        Ranks that divide every routed expert between them; divides ``tp``, since all
        of them need the same tokens.
    pp
        Stages, each with some of the layers.
    dp
        Replicas of attention, each with tokens of its own.
    """

    tp: int = 1
    etp: int = 1
    pp: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise UsageError(f"{name} = {value!r}: must be an integer >= 1")
        if self.tp % self.etp:
            raise UsageError(
                f"etp = {self.etp}: must divide tp = {self.tp}, whose ranks have the "
                "same tokens"
            )

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.tp * self.pp * self.dp

    @property
    def ep(self) -> int:
        """Places for experts in a stage."""
        return self.dp * self.tp // self.etp

    def check(self, config: DecoderConfig, ranks: int) -> None:
        """Check that a model can be divided so, on this many ranks.

        Raises
        ------
        UsageError
            If something does not divide evenly, or there are too few ranks.
        """
        if ranks != self.ranks:
            raise UsageError(
                f"tp {self.tp} x dp {self.dp} x pp {self.pp} needs {self.ranks} ranks, "
                f"there are {ranks}"
            )
        if config.layers < self.pp:
            raise UsageError(
                f"pp = {self.pp}: the model has {config.layers} layers, fewer than "
                "stages"
            )
        at = config.attention
        self._divides("tp", at.heads, "attention heads")
        kv_heads = at.kv_heads if isinstance(at, GroupedDims) else self.tp
        if kv_heads % self.tp and self.tp % kv_heads:
            raise UsageError(
                f"tp = {self.tp}: must divide the {kv_heads} heads of keys and "
                "values, or be divisible by them"
            )
        if config.dense_layers:
            self._divides("tp", config.dense_ffn, "columns of a dense layer")
        if config.moe_layers:
            self._divides("tp", config.shared_ffn, "columns of the shared experts")
            self._divides("etp", config.expert_ffn, "columns of an expert")

    def _divides(self, name: str, whole: int, what: str) -> None:
        degree = getattr(self, name)
        if whole % degree:
            raise UsageError(f"{name} = {degree}: must divide the {whole} {what}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank stands.

    Attributes
    ----------
    tp, dp, pp
        Its tensor part, replica and stage.
    """

    spec: ParallelSpec
    rank: int

    @property
    def tp(self) -> int:
        """Tensor part."""
        return self.rank % self.spec.tp

    @property
    def dp(self) -> int:
        """Replica."""
        return self.rank // self.spec.tp % self.spec.dp

    @property
    def pp(self) -> int:
        """Stage."""
        return self.rank // (self.spec.tp * self.spec.dp)

    @property
    def tp_ranks(self) -> list[int]:
        """Ranks of its attention group: same tokens, other heads."""
        first = self.rank - self.tp
        return list(range(first, first + self.spec.tp))

    @property
    def dp_ranks(self) -> list[int]:
        """Ranks with the same weights of attention."""
        stage = self.spec.tp * self.spec.dp
        first = self.pp * stage + self.tp
        return list(range(first, (self.pp + 1) * stage, self.spec.tp))

    @property
    def pp_ranks(self) -> list[int]:
        """Ranks of its pipeline, by stage."""
        stage = self.spec.tp * self.spec.dp
        return list(range(self.rank % stage, self.spec.ranks, stage))

    @property
    def ep_ranks(self) -> list[int]:
        """Ranks of its stage with the same slice of experts, in EP order."""
        stage = self.spec.tp * self.spec.dp
        first = self.pp * stage + self.tp % self.spec.etp
        return list(range(first, (self.pp + 1) * stage, self.spec.etp))
