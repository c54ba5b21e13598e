"""Many networks trained in one pass over the bags.

Owns the epochs. In each step every bag is read once, for all networks that see it: folds, seeds and settings alike.
A network sees its own training patients in the order of the data seed and drops out by its own seed, so trained alone
it is the same, to the order of sums. Where training sees whole bags in one step, the validation patients ride along:
the step that begins an epoch scores them by the parameters that the last one left.

Shape suffixes: M networks of a stack, B patients of a network, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsurv_train.bags import Bags, Draw
from mmsurv_train.batches import patient_batches, training_slides
from mmsurv_train.judge import Course, Judge
from mmsurv_train.models.known import Known, hide
from mmsurv_train.outputs import LossOfStep, loss_of
from mmsurv_train.patients import Patients
from mmsurv_train.stack import Network, Stack, shape_of
from mmsurv_train.turns import Reader, Turn

OnEpoch = Callable[[Network, dict[str, float]], None]


class Pass:
    """Networks that are trained together; all have the bag settings, batch size and data seed of the first."""

    def __init__(
        self,
        networks: Sequence[Network],
        patients: Patients,
        bags: Bags | None,
        known: Callable[[Network], Known],
        *,
        device: torch.device,
        dtype: torch.dtype,
        on_epoch: OnEpoch,
    ) -> None:
        """
        Args:
            networks: what to train.
            patients: all patients that any of them sees.
            bags: features of their slides.
            known: what a network knows of all patients besides their tiles, (1, P, …).
            device, dtype: of the parameters.
            on_epoch: told the history's row of each epoch of each network.
        """
        self.patients, self.bags, self.known, self.on_epoch = patients, bags, known, on_epoch
        self.recipe = networks[0].recipe
        self.courses = {
            network: Course(
                network,
                Judge(
                    network.recipe.fit,
                    patients.time[network.validation],
                    patients.event[network.validation],
                    network.preprocess.time_edges,
                ),
            )
            for network in networks
        }
        alike: dict[Any, list[Network]] = {}
        for network in networks:
            alike.setdefault(shape_of(network), []).append(network)
        self.stacks = [Stack(group, device=device, dtype=dtype) for group in alike.values()]
        self.epoch = 0
        self._step_number = 0
        settings, size = self.recipe.bags, self.recipe.fit.batch_size
        most = max(len(network.train) for network in networks)
        self._rides = settings.unit == "case" and not settings.size and (not size or size >= most)
        """Whether validation patients ride along: training and prediction see the same bags, in one step."""
        self._cached: dict[Any, Any] = {}

    def run(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Train until every network has stopped; ``on_end`` is called after each epoch."""
        while self.stacks:
            self.epoch += 1
            for course in self._courses():
                course.begin_epoch()
            for step, turn in enumerate(self._turns()):
                self._step(turn, step)
            for course in self._courses():
                course.end_epoch(self.epoch)
            if not self._rides or self._is_last:
                self._validate()
            self.let_go()
            on_end()

    def _courses(self) -> list[Course]:
        return [self.courses[network] for stack in self.stacks for network in stack.networks]

    @property
    def _is_last(self) -> bool:
        """Whether some network has had all its epochs: no further step will score it."""
        return any(course.network.recipe.fit.epochs <= self.epoch for course in self._courses())

    def _turns(self) -> list[Turn]:
        """The steps of an epoch."""
        if self._rides:
            if "turn" not in self._cached:
                seen = [[(one.train, one.validation) for one in stack.networks] for stack in self.stacks]
                self._cached["turn"] = self._turn(seen, Draw(self.recipe.fit.data_seed, 0))
            return [self._cached["turn"]]
        fit, draw = self.recipe.fit, Draw(self.recipe.fit.data_seed, self.epoch)
        batches = [
            [
                patient_batches(self.patients.event[one.train], fit.batch_size, seed=fit.data_seed, epoch=self.epoch)
                for one in stack.networks
            ]
            for stack in self.stacks
        ]
        none = np.zeros(0, np.int64)
        return [
            self._turn(
                [
                    [
                        (one.train[mine[step]] if step < len(mine) else none, none)
                        for one, mine in zip(stack.networks, of_stack, strict=True)
                    ]
                    for stack, of_stack in zip(self.stacks, batches, strict=True)
                ],
                draw,
            )
            for step in range(max(len(mine) for of_stack in batches for mine in of_stack))
        ]

    def _turn(self, seen: list[list[tuple[np.ndarray, np.ndarray]]], draw: Draw) -> Turn:
        """A turn in which networks see these patients: those trained on, those only scored."""
        settings = self.recipe.bags
        everyone = [np.concatenate(pair) for of_stack in seen for pair in of_stack]
        # In the order of a network that is alone, nothing need be brought into another order and back.
        patients = everyone[0] if len(everyone) == 1 else np.unique(np.concatenate(everyone))
        place = np.full(len(self.patients), -1)
        place[patients] = np.arange(len(patients))
        names = [self.patients.case_ids[row] for row in patients]
        slides = [
            training_slides(name, self.patients.slides[row], settings, draw) if self.bags is not None else []
            for name, row in zip(names, patients, strict=True)
        ]
        return Turn(
            slides=slides,
            patient=patients,
            names=names,
            seen=[[place[np.concatenate(pair)] for pair in of_stack] for of_stack in seen],
            n_train=[[len(pair[0]) for pair in of_stack] for of_stack in seen],
            size=settings.size,
            draw=draw if settings.redraw else None,
        )

    def _validation_turn(self) -> tuple[Turn, np.ndarray]:
        """Every bag whose risk counts for a validation patient, and its patient."""
        settings = self.recipe.bags
        networks = [[one.validation for one in stack.networks] for stack in self.stacks]
        patients = np.unique(np.concatenate([rows for of_stack in networks for rows in of_stack]))
        bags: list[tuple[int, list[str]]] = []
        for row in patients.tolist():
            slides = self.patients.slides[row]
            split = settings.unit == "slide" and self.bags is not None
            bags += [(row, [slide]) for slide in slides] if split and slides else [(row, slides)]
        owner = np.array([row for row, _ in bags])
        turn = Turn(
            slides=[slides for _, slides in bags],
            patient=owner,
            names=[self.patients.case_ids[row] for row in owner],
            seen=[[np.flatnonzero(np.isin(owner, rows)) for rows in of_stack] for of_stack in networks],
            n_train=[[0] * len(of_stack) for of_stack in networks],
            size=settings.size_at_prediction,
        )
        return turn, owner

    def _forward(self, turn: Turn, *, training: bool) -> tuple[list[Known], list[Tensor]]:
        """What each stack knows, and its outputs (M, B, K) on the CPU: sums over patients have one order there."""
        reader = self._kept(("reader", id(turn)), turn, lambda: Reader(turn, self.bags, self.stacks))
        known = self._kept(("known", id(turn)), turn, lambda: [self._known(turn, s) for s in range(len(self.stacks))])
        for s, stack in enumerate(self.stacks):
            stack.model.train(training)
            if training:
                stack.model.noise.begin(self._step_number, turn.n_train[s])
        if training:
            known = [hide(one, stack.model) for one, stack in zip(known, self.stacks, strict=True)]
        pooled = reader.pool(known, training=training)
        outs = [
            stack.model.outputs(one, found).cpu() if turn.rows(s).shape[1] else torch.zeros(len(stack), 0, 1)
            for s, (stack, one, found) in enumerate(zip(self.stacks, known, pooled, strict=True))
        ]
        return known, outs

    def _kept(self, key: Any, turn: Turn, make: Callable[[], Any]) -> Any:
        """What is made of a turn that comes again every epoch is made once."""
        if turn is not self._cached.get("turn") and turn is not self._cached.get("validation", (None,))[0]:
            return make()
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]

    def _known(self, turn: Turn, s: int) -> Known:
        patients = torch.from_numpy(turn.patient)[turn.rows(s)]
        return Known.side_by_side(
            [self.known(network).of(rows) for network, rows in zip(self.stacks[s].networks, patients, strict=True)]
        )

    def _step(self, turn: Turn, step: int) -> None:
        self._step_number = self.epoch * 100_000 + step
        known, outs = self._forward(turn, training=True)
        if self._rides and self.epoch > 1:
            for s, stack in enumerate(self.stacks):
                for m, network in enumerate(stack.networks):
                    course, first = self.courses[network], turn.n_train[s][m]
                    if course.goes_on:
                        self._judge(s, m, outs[s][m, first : len(turn.seen[s][m])].detach())
        losses, moving = [], []
        for s, out_MBK in enumerate(outs):
            if not out_MBK.shape[1]:  # its networks have had all their batches of this epoch
                moving.append([False] * len(self.stacks[s]))
                continue
            loss = self._kept(("loss", s, id(turn)), turn, partial(self._loss, turn, s))
            finite = (torch.isfinite(out_MBK).all(2) | ~turn.used(s)).all(1)
            loss_M = loss.loss(out_MBK) + self._image_loss(s, known[s], out_MBK, loss)
            moving.append(self._hear(s, turn.n_train[s], loss_M.detach(), loss.n_terms, finite))
            losses += [loss_M[m] for m, moves in enumerate(moving[-1]) if moves]
        if losses:
            torch.stack(losses).sum().backward()
            for stack, moves in zip(self.stacks, moving, strict=True):
                stack.step(moves)

    def _image_loss(self, s: int, known: Known, out_MBK: Tensor, loss: LossOfStep) -> Tensor | float:
        """The second loss, of what tiles add to the base, at each network's weight; 0 where no network has one."""
        weights = [network.recipe.fit.image_loss for network in self.stacks[s].networks]
        base_MB = self.stacks[s].model.base_risk(known)
        if not any(weights) or base_MB is None:
            return 0.0
        return out_MBK.new_tensor(weights) * loss.loss(out_MBK - base_MB[..., None].to(out_MBK))

    def _hear(self, s: int, n_train: list[int], loss_M: Tensor, terms_M: Tensor, finite_M: Tensor) -> list[bool]:
        """Note the losses of a step; says which networks it moves."""
        moves = []
        for m, network in enumerate(self.stacks[s].networks):
            course, terms = self.courses[network], int(terms_M[m])
            if not bool(finite_M[m]) and not course.failed:
                course.failed = self._not_finite(network)
            if course.goes_on and not terms and n_train[m]:
                course.skipped += 1
            if course.goes_on and terms:
                course.total, course.terms = course.total + loss_M[m].item() * terms, course.terms + terms
            moves.append(course.goes_on and terms > 0)
        return moves

    def _not_finite(self, network: Network) -> str:
        return (
            f"In epoch {self.epoch} the risks stopped being finite (seed {network.seed}). Lower fit.learning_rate "
            f"({network.recipe.fit.learning_rate}), or look for extreme values in the input."
        )

    def _loss(self, turn: Turn, s: int) -> LossOfStep:
        patients, networks = turn.patient[turn.rows(s).numpy()], self.stacks[s].networks
        return loss_of(
            networks[0].recipe.fit,
            torch.from_numpy(self.patients.time[patients]),
            torch.from_numpy(self.patients.event[patients]),
            turn.trained(s),
            [network.preprocess.time_edges for network in networks],
        )

    @torch.no_grad()
    def _validate(self) -> None:
        """Score the validation patients of the networks whose epoch is still to be judged."""
        if "validation" not in self._cached:
            self._cached["validation"] = self._validation_turn()
        turn, owner = self._cached["validation"]
        for s, out_MBK in enumerate(self._forward(turn, training=False)[1]):
            for m, network in enumerate(self.stacks[s].networks):
                course, bags = self.courses[network], turn.seen[s][m]
                waits = self._rides and network.recipe.fit.epochs > self.epoch  # for the next step
                if not course.goes_on or waits:
                    continue
                self._judge(s, m, _means_by(owner[bags], out_MBK[m, : len(bags)], network.validation))

    def _judge(self, s: int, m: int, out_BK: Tensor) -> None:
        network = self.stacks[s].networks[m]
        course = self.courses[network]
        try:
            row, better = course.judge.hear(course.trained, out_BK)
        except FloatingPointError:
            course.failed = self._not_finite(network)
            return
        course.trained = {}
        if better:
            course.judge.best = self.stacks[s].state(m)
        self.on_epoch(network, row)

    def let_go(self) -> None:
        """Drop the networks that have stopped."""
        going = [[self.courses[network].goes_on for network in stack.networks] for stack in self.stacks]
        if all(all(of_stack) for of_stack in going):
            return
        self._cached.clear()
        for stack, of_stack in zip(self.stacks, going, strict=True):
            if any(of_stack) and not all(of_stack):
                stack.keep([m for m, goes in enumerate(of_stack) if goes])
        self.stacks = [stack for stack, of_stack in zip(self.stacks, going, strict=True) if any(of_stack)]


def _means_by(owner_X: np.ndarray, out_XK: Tensor, patients: np.ndarray) -> Tensor:
    """The mean output of each patient's bags, (B, K), in the order of ``patients``."""
    order = np.argsort(patients, kind="stable")
    place_X = torch.from_numpy(order[np.searchsorted(patients[order], owner_X)])
    if np.array_equal(np.sort(place_X.numpy()), np.arange(len(patients))):  # a bag for each
        return torch.empty_like(out_XK).index_copy(0, place_X, out_XK)
    total = torch.zeros(len(patients), out_XK.shape[1], dtype=torch.float64).index_add(0, place_X, out_XK.double())
    return total / torch.bincount(place_X, minlength=len(patients))[:, None]
