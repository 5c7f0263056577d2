"""From a draft to a plan of training: rounds, steps and sampling rate, from public numbers alone."""

from collections.abc import Mapping

from federation.basis import Basis
from federation.contract import FeatureContract
from federation.study import MlpModel, Model, StudyDraft, Training
from server.recipe import Family, plan_training

# The plan is the same for every budget that a policy may grant; a draft that leaves epsilon to the policies is planned as for this one.
NOMINAL_EPSILON = 1.0


def derive_training(draft: StudyDraft, sizes: Mapping[str, int], contract: FeatureContract) -> Training:
    """Return rounds, steps and sampling rate, from the declared sizes (by member) and the width of the model's encoding.

    A draft that names its rounds gets exactly so many; steps, and with them the price, follow from that.
    """
    family = family_of(draft.model)
    width = _width(draft.model, contract)
    declared = [sizes[member] for member in sorted(sizes)]
    plan = plan_training(declared, draft.epsilon or NOMINAL_EPSILON, width, draft.mode, family, draft.rounds)
    return Training(
        mode=draft.mode,
        rounds=plan.rounds,
        steps=plan.steps,
        sampling_rate=plan.sampling_rate,
        server_optimizer=draft.server_optimizer,
    )


def _width(model: Model, contract: FeatureContract) -> int:
    """Return the number of a model's weights, or the width of a linear model's encoding."""
    if not isinstance(model, MlpModel):
        return Basis.of_model(contract, model).width
    from federation.networks import build, weights_of  # noqa: PLC0415 - torch takes seconds to import, and most plans need none

    return sum(value.size for value in weights_of(build(model, contract)).values())


def family_of(model: Model) -> Family:
    """Return whether a model is linear in its encoding, or a network of layers."""
    return "mlp" if isinstance(model, MlpModel) else "linear"


def dimension_of(model: Model, contract: FeatureContract) -> int:
    """Return how many numbers a round's vector of a linear model has: a weight for each encoded column, and the intercept."""
    return _width(model, contract) + 1
