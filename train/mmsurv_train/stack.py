"""Networks of one shape in training: their parameters side by side, and an Adam with settings of each one's own.

Owns the step of the parameters and what is saved of them. Which patients a network sees, and when it stops, is said
by ``passes``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmsurv_train.frozen import Frozen
from mmsurv_train.models import PER_NETWORK, SurvivalModel, build_stack, narrow
from mmsurv_train.prepare import dims_of
from mmsurv_train.preprocess import Preprocess
from mmsurv_train.recipe import TrainRecipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """One network to train."""

    job: int
    """Index of the job it belongs to."""
    seed: int
    """Of initialisation and dropout."""
    recipe: TrainRecipe
    preprocess: Preprocess
    frozen: Frozen
    train: np.ndarray
    """Rows of its training patients among all patients."""
    validation: np.ndarray


class Stack:
    """Networks that are trained beside one another; they may leave, one by one."""

    def __init__(self, networks: Sequence[Network], *, device: torch.device, dtype: torch.dtype) -> None:
        first = networks[0]
        self.networks = list(networks)
        self.model = build_stack(
            [one.recipe.model for one in networks],
            dims_of(first.recipe, first.preprocess),
            seeds=[one.seed for one in networks],
        )
        if first.preprocess.feature_dim:
            self.model.standardise_by(
                *(
                    torch.stack([torch.from_numpy(getattr(one.preprocess, name)) for one in networks]).float()
                    for name in ("feature_mean", "feature_sd")
                )
            )
        self.model.take_frozen([one.frozen for one in networks])
        self.model.to(device=device, dtype=dtype)
        self._adam, self._views = self._new_adam()

    def __len__(self) -> int:
        return len(self.networks)

    def step(self, moving: Sequence[bool]) -> None:
        """Move the networks along the gradients that were computed; those that do not move keep their momentum too."""
        for parameter, views in zip(self.model.parameters(), self._views, strict=True):
            for m, view in enumerate(views):
                view.grad = parameter.grad[m] if moving[m] and parameter.grad is not None else None
            parameter.grad = None
        self._adam.step()

    def keep(self, which: Sequence[int]) -> None:
        """Go on with some networks only."""
        before = [[views[m] for m in which] for views in self._views]
        state = self._adam.state
        self.networks = [self.networks[m] for m in which]
        narrow(self.model, which)
        self._adam, self._views = self._new_adam()
        for old_views, new_views in zip(before, self._views, strict=True):
            for old, new in zip(old_views, new_views, strict=True):
                if old in state:
                    self._adam.state[new] = state[old]

    def state(self, m: int) -> dict[str, Tensor]:
        """Parameters and buffers of one network, each with a leading dimension of 1; copies."""
        return {name: value[m : m + 1].detach().clone() for name, value in self.model.state_dict().items()}

    def momentum(self, m: int) -> dict[str, Tensor]:
        """What Adam remembers of one network; copies. Empty before its first step."""
        names = [name for name, _ in self.model.named_parameters()]
        return {
            f"{name}.{key}": value.detach().clone()
            for name, views in zip(names, self._views, strict=True)
            for key, value in self._adam.state.get(views[m], {}).items()
        }

    @torch.no_grad()
    def restore(self, m: int, state: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` and ``momentum`` gave."""
        for name, value in self.model.state_dict().items():
            value[m : m + 1] = state[name]
        for (name, _), views in zip(self.model.named_parameters(), self._views, strict=True):
            found = {
                key.removeprefix(f"{name}."): value for key, value in momentum.items() if key.rpartition(".")[0] == name
            }
            if found:
                self._adam.state[views[m]] = {
                    key: value.to(views[m].device, copy=True) if key != "step" else value.clone()
                    for key, value in found.items()
                }

    def _new_adam(self) -> tuple[torch.optim.Adam, list[list[nn.Parameter]]]:
        """Adam over views of the parameters, one for each network: it takes a learning rate for each."""
        views = [
            [nn.Parameter(parameter.detach()[m]) for m in range(len(self))] for parameter in self.model.parameters()
        ]
        groups = [
            {
                "params": [of_all[m] for of_all in views],
                "lr": one.recipe.fit.learning_rate,
                "weight_decay": one.recipe.fit.weight_decay,
            }
            for m, one in enumerate(self.networks)
        ]
        return torch.optim.Adam(groups, fused=True), views


def shape_of(network: Network) -> Any:
    """Networks of one shape can be stacked: alike in all but seed, fold and the settings each may have of its own."""
    own: dict[str, Any] = dict.fromkeys(PER_NETWORK, 0.0)
    recipe, preprocess = network.recipe, network.preprocess
    loss = (recipe.fit.loss, recipe.fit.nll_alpha)
    return dataclasses.replace(recipe.model, **own), preprocess.genes, dims_of(recipe, preprocess), loss


def model_of(states: Sequence[Mapping[str, Tensor]], network: Network) -> SurvivalModel:
    """A model of networks of one job, from what ``Stack.state`` gave of each; on the CPU, ready to predict."""
    seeds = [network.recipe.fit.seed + index for index in range(len(states))]
    model = build_stack([network.recipe.model] * len(states), dims_of(network.recipe, network.preprocess), seeds=seeds)
    model.load_state_dict({name: torch.cat([state[name].cpu() for state in states]) for name in states[0]})
    return model.eval()
