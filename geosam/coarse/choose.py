"""Which rule, which threshold, and why: the sentence that goes into the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geosam.coarse.rules import BAND_RULES, RGB_RULES, BandRule, Rule, fitted_look_rule, known_methods
from geosam.coarse.threshold import Fit, fit_threshold
from geosam.errors import OptionsError

if TYPE_CHECKING:
    from geosam.options import CoarseOptions
    from geosam.scene import Scene


INDEX_TRUST = 5.0
"""Log-odds of a pixel well inside what a band index with two modes calls water, or calls dry.

More than the say that a run leaves the model beside it (:data:`geosam.predict.hint.MODEL_SAY`): a model that
sees red, green and blue alone may move banks, but not overrule infrared in the middle of a river or a forest.
"""

SURE_BELIEF = 0.5
"""Belief in a threshold from which on it has all of that trust."""


@dataclass(frozen=True)
class Choice:
    """A rule made ready for one scene."""

    rule: Rule
    threshold: float
    reason: str
    warnings: tuple[str, ...]
    trust: float = 0.0
    """Log-odds that a pixel is as the rule says; see :attr:`CoarseMask.trust`."""


def choose_rule(scene: Scene, options: CoarseOptions) -> Choice:
    """Choose and fit the rule of the first guess for a scene.

    Args:
        scene: Any scene.
        options: ``method`` is one of the rules' names or ``auto``; a given ``threshold`` stands.

    Raises:
        OptionsError: The method is unknown, or needs a band that the scene does not have.
    """
    fitted = _fitted(scene, options)
    taken = next((pair for pair in fitted if pair[1].bimodal), fitted[0])
    passed_over = [rule.title for rule, _ in fitted[: fitted.index(taken)]]
    rule, fit = taken
    threshold = fit.threshold if options.threshold is None else options.threshold
    # Only infrared tells a model that sees red, green and blue something that it cannot see for itself.
    trust = _trust_in(fit) if isinstance(rule, BandRule) else 0.0
    return Choice(rule, threshold, _reason(rule, fit, options, passed_over), _warnings(rule, fit, options), trust)


def _trust_in(fit: Fit) -> float:
    """Less for a threshold that may as well part two kinds of land, or a few roofs from all else."""
    return INDEX_TRUST * min(1.0, fit.belief / SURE_BELIEF) if fit.bimodal else 0.0


def _fitted(scene: Scene, options: CoarseOptions) -> list[tuple[Rule, Fit]]:
    """Candidates with their fits, most trusted first, up to the first that parts two modes."""
    fitted: list[tuple[Rule, Fit]] = []
    for rule in _candidates(scene, options.method):
        scores = rule.sample(scene)
        fitted.append((rule, fit_threshold(scores, rule.default, *rule.bounds(scores))))
        if fitted[-1][1].bimodal:
            break
    return fitted


def _candidates(scene: Scene, method: str) -> list[Rule]:
    if method == "auto":
        # Never from an index to RGB: where an index has one mode there is one kind of ground, and RGB,
        # which parts fields from forest just as gladly, would find a river in it.
        # Nor from an index with a guard to the same one without: the guard is what took the other mode for leaves.
        there = [rule for rule in BAND_RULES.values() if not _missing(rule, scene)]
        guarded = any(rule.veto is not None for rule in there)
        spectral: list[Rule] = [rule for rule in there if not (guarded and rule.method == "ndwi")]
        return spectral or [fitted_look_rule(scene)]
    if method == "rgb":
        return [fitted_look_rule(scene)]
    if method == "learned":
        raise OptionsError("The learned first guess needs the model: use it as geosam segment --coarse learned.")
    rule = BAND_RULES.get(method) or RGB_RULES.get(method)
    if rule is None:
        raise OptionsError(
            f"Unknown coarse method {method!r}, and no such file. Use one of {', '.join(known_methods())}, or a mask."
        )
    if isinstance(rule, BandRule) and (missing := _missing(rule, scene)):
        raise OptionsError(
            f"Coarse method {method} needs {', '.join(missing)}, and the bands of {scene.name} are "
            f"{', '.join(scene.bands) or 'not named'}. Name them with --bands, or use the method auto."
        )
    return [rule]


def has_index(scene: Scene) -> bool:
    """Whether a scene has the bands of any spectral index of water, infrared among them."""
    return any(not _missing(rule, scene) for rule in BAND_RULES.values())


def _missing(rule: Rule, scene: Scene) -> list[str]:
    return [role for role in rule.roles if role not in scene.bands]


def _reason(rule: Rule, fit: Fit, options: CoarseOptions, passed_over: list[str]) -> str:
    why = "asked for" if options.method != "auto" else _bands_are_there(rule)
    modes = "two modes" if fit.bimodal else "one mode"
    parts = [f"{rule.title}: {why}", f"{modes}, separability {fit.separability:.2f}"]
    if passed_over:
        parts.append(f"{', '.join(passed_over)} passed over for having one mode")
    if options.threshold is not None:
        parts.append("threshold as given")
    elif not fit.bimodal:
        parts.append("threshold at its default")
    return "; ".join(parts) + "."


def _bands_are_there(rule: Rule) -> str:
    if rule.method == "rgb":
        return "no infrared band is there, so dark, smooth and of the scene's own water colour"
    names = {"nir": "NIR", "swir1": "SWIR1", "swir2": "SWIR2"}
    *first, last = (names.get(role, role) for role in rule.roles)
    return f"{', '.join(first)} and {last} are there"


def _warnings(rule: Rule, fit: Fit, options: CoarseOptions) -> tuple[str, ...]:
    if fit.bimodal or rule.method == "hsv":
        return ()
    how = "as given" if options.threshold is not None else f"at its default, {fit.threshold:g}"
    return (
        f"The histogram of the {rule.title} has one mode, so water and land may not be told apart; "
        f"the threshold is {how}. Look at the mask, or set --threshold.",
    )
