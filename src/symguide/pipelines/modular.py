"""Guider: loss guidance as a component of Modular Diffusers' pipelines. This module alone needs diffusers itself."""

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NoReturn

from diffusers import ClassifierFreeGuidance

from symguide.branch import Rule
from symguide.errors import ConfigError
from symguide.pipelines.bridge import Bridge
from symguide.pipelines.guide import checked
from symguide.pipelines.guiders import guiders
from symguide.pipelines.modules import checkpointed
from symguide.pipelines.patch import Patched, patched
from symguide.pipelines.runs import Record


class Guider(ClassifierFreeGuidance):  # type: ignore[misc]
    """Classifier-free guidance, and guidance by a recipe, of all that a modular pipeline draws.

        pipe.update_components(guider=Guider(pipe, loss=SAG(objective, n=4), guidance_scale=5.0))
        images = pipe(prompt="a cat", output="images")
        pipe.guider.record.trace, pipe.guider.record.cost

    It is `guide`, put on at the beginning of every step and taken off when the scheduler has made the step, so that
    nothing of it is there outside of the denoising loop, nor after an error in a network, an objective or a recipe.
    (What another block's error leaves behind in the middle of a step is taken off when the next run sets its
    timesteps.)

    Args:
        pipe: the modular pipeline that it is for.
        loss, prediction, decode, checkpoint, seed, indices, on_nan: as for `guide`.
        settings: of diffusers' ClassifierFreeGuidance (`guidance_scale`, `guidance_rescale`, `start`, `stop`, ...);
            those of the pipeline's present guider where not given. They are of classifier-free guidance only: when the
            recipe acts, its own window says.

    Attributes:
        record: what the last run did, as `guide` yields it: `record.runs` holds that one alone.

    Raises:
        ConfigError: for pipelines without a guider, for what is no recipe, and when a run begins: for a guider that is
            not its pipeline's, and for pipelines that cannot be guided.
        GuidanceError: in a run, as `guide`.

    Cost: as `guide`.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        loss: Any = None,
        prediction: Rule | None = None,
        decode: bool = True,
        checkpoint: bool = False,
        seed: int = 0,
        indices: Iterable[int] | None = None,
        on_nan: str = "raise",
        **settings: Any,
    ) -> None:
        given = checked(loss, prediction, decode, checkpoint, seed, indices, on_nan)
        if not guiders(pipe):
            raise ConfigError(
                f"Guider takes a modular pipeline that has a guider, and {type(pipe).__name__} has none: guide it with "
                "`with guide(pipe, ...)`"
            )
        names = ("guidance_scale", "guidance_rescale", "use_original_formulation", "start", "stop", "enabled")
        present = guiders(pipe)[0].config
        super().__init__(**{name: present[name] for name in names if name in present} | settings)
        self.guided = _Guided(pipe, *given)

    @property
    def record(self) -> Record:
        return self.guided.record

    def new(self, **settings: Any) -> "Guider":
        """Another one for the same runs with other settings of classifier-free guidance: `guider_2` of Wan 2.2."""
        made = type(self).__new__(type(self))
        own = {name: value for name, value in self.config.items() if not name.startswith("_")}
        ClassifierFreeGuidance.__init__(made, **own | settings)
        made.guided = self.guided
        return made

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        """What pipelines call at the beginning of every step."""
        super().set_state(step, num_inference_steps, timestep)
        self.guided.put_on(step)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """ConfigError: no file holds a pipeline and an objective."""
        raise ConfigError("a Guider is made of a pipeline and a recipe, not of a config: Guider(pipe, loss=...)")

    def save_config(self, *args: Any, **kwargs: Any) -> NoReturn:
        """ConfigError: no file holds a pipeline and an objective. Pipelines are saved without their guiders."""
        raise ConfigError("a Guider holds a pipeline and a recipe, which no config can: save the code that makes it")


class _Guided:
    """The guided runs of one pipeline, step by step: what its guiders share."""

    def __init__(self, pipe: Any, *settings: Any) -> None:
        self.pipe, self.settings, self.record = pipe, settings, Record()
        self.bridge: Bridge | None = None
        self.worn: ExitStack | None = None
        self.thread = threading.get_ident()

    def put_on(self, index: int) -> None:
        """Guide the step that begins now; the first one begins a run."""
        self.thread = threading.get_ident()
        unmade = self.worn is not None and index > 0
        self.take_off()
        if unmade:
            self.end()
            raise ConfigError(
                f"the last step was not made by the scheduler that {type(self.pipe).__name__} has: make a Guider for "
                "every pipeline, and none for pipelines with two guiders at a time"
            )
        bridge = self.bridge = self._begin() if index == 0 or self.bridge is None else self.bridge
        with ExitStack() as worn:
            worn.enter_context(checkpointed(self.pipe, bridge.checkpoint))
            worn.enter_context(bridge.in_place())
            step, set_timesteps = bridge.scheduler.step, bridge.scheduler.set_timesteps

            def made(*args: Any, **kwargs: Any) -> Any:
                result = step(*args, **kwargs)
                self.take_off()
                if bridge.run is not None and bridge.run.over:
                    self.bridge = None
                return result

            def next_run(*args: Any, **kwargs: Any) -> Any:
                self.end()
                return set_timesteps(*args, **kwargs)

            worn.enter_context(patched(bridge.scheduler, step=self._safe(made), set_timesteps=next_run))
            for network in bridge.recorder.networks:
                worn.enter_context(patched(network, forward=self._safe(network.forward)))
            self.worn = worn.pop_all()

    def take_off(self) -> None:
        """Leave the pipeline as it was."""
        worn, self.worn = self.worn, None
        if worn is not None:
            worn.close()

    def end(self) -> None:
        """End the run where it is."""
        self.take_off()
        self.bridge = None

    def _safe(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, after whose errors in this thread the run is at its end: nobody else would say so."""

        def safe(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except BaseException:
                if threading.get_ident() == self.thread:  # networks may be shared
                    self.end()
                raise

        return safe

    def _begin(self) -> Bridge:
        name = type(self.pipe).__name__
        if any(getattr(guider, "guided", None) is not self for guider in guiders(self.pipe)):
            raise ConfigError(
                f"all guiders of a guided run must be made for it: {name}.update_components(guider=guider), with "
                "guider = Guider(pipe, ...) of that very pipeline, and guider_2=guider.new(guidance_scale=...) where "
                "there is one"
            )
        if isinstance(vars(self.pipe.scheduler).get("step"), Patched):
            raise ConfigError(f"{name} has a Guider and is guided already: take one of `guide` and Guider")
        bridge = Bridge(self.pipe, *self.settings)
        bridge.record = self.record
        self.record.runs.clear()
        return bridge
