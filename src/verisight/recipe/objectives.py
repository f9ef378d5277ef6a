"""How answers are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from verisight.recipe.base import Node, NonNegative, Positive, Smoothing, Switch, about
from verisight.recipe.negatives import Blank, Cropped, Noised, Swapped

Beta = Annotated[Positive, about("weight of staying near the reference, per nat [Rafailov et al. 2023, eq. 7]")]


class Dpo(Node):
    """Direct preference optimization [Rafailov et al. 2023, eq. 7; paper eq. 3]."""

    kind: Literal["dpo"] = "dpo"
    beta: Beta = 0.1
    label_smoothing: Annotated[
        Smoothing, about("share of pairs taken to be swapped [Mitchell 2023, conservative DPO]")
    ] = 0.0


class Ipo(Node):
    """Identity preference optimization: the margin is drawn to 1 / (2 tau) [Azar et al. 2023, eq. 17]."""

    kind: Literal["ipo"] = "ipo"
    tau: Annotated[
        Positive, about("the margin's target is 1 / (2 tau) nats [paper appendix A, as beta: 0.8 to 1.0]")
    ] = 0.1
    over: Annotated[
        Literal["sum", "mean"],
        about("an answer's log-prob: summed over its tokens [Azar et al. 2023], or their mean, as TRL takes it"),
    ] = "sum"


class Slic(Node):
    """Hinge loss on the margin [Zhao et al. 2023, SLiC-HF, in the form of Tang et al. 2024]."""

    kind: Literal["slic"] = "slic"
    beta: Annotated[Positive, about("the margin is pushed up to 1 / beta nats [paper appendix A: 0.02 to 0.2]")] = 0.1


class CalibratedSlic(Node):
    """SLiC-HF as published: a hinge on log-probs without a reference model, and SFT [Zhao et al. 2023, eq. 3]."""

    kind: Literal["calibrated_slic"] = "calibrated_slic"
    delta: Annotated[Positive, about("margin of log-probs that is enough, nats [Zhao et al. 2023: 1.0]")] = 1.0
    sft_weight: Annotated[NonNegative, about("weight of the SFT term on the chosen answer")] = 0.1


class Gpo(Node):
    """The general family: any convex function of the margin [Tang et al. 2024, generalized preference optimization]."""

    kind: Literal["gpo"] = "gpo"
    beta: Beta = 0.1
    f: Annotated[
        Literal["logistic", "hinge", "squared", "exponential", "truncated_quadratic"],
        about("which; logistic is DPO, hinge SLiC, squared IPO with tau beta / 2 [Tang et al. 2024, table 1]"),
    ] = "logistic"


class Dpop(Node):
    """DPO-Positive: a penalty where the chosen answer becomes less likely [Pal et al. 2024, eq. 3]."""

    kind: Literal["dpop"] = "dpop"
    beta: Beta = 0.1
    penalty: Annotated[NonNegative, about("weight of the penalty [Pal et al. 2024: 50]")] = 50.0


class Rpo(Node):
    """DPO with an SFT term on the chosen answer [Liu et al. 2024; Pang et al. 2024]."""

    kind: Literal["rpo"] = "rpo"
    beta: Beta = 0.1
    sft_weight: Annotated[NonNegative, about("weight of the SFT term, per token")] = 1.0


class Mdpo(Node):
    """mDPO: DPO, the same with a spoiled picture as the rejected side, and an anchor [Wang et al. 2024]."""

    kind: Literal["mdpo"] = "mdpo"
    beta: Beta = 0.1
    delta: Annotated[
        NonNegative, about("what the anchor holds beta x the chosen log-ratio above [Wang et al. 2024: 0]")
    ] = 0.0
    image_weight: Annotated[NonNegative, about("weight of the term with the spoiled picture")] = 1.0
    anchor_weight: Annotated[NonNegative, about("weight of the anchor")] = 1.0
    view: Annotated[
        Cropped | Noised | Blank | Swapped,
        Field(discriminator="kind"),
        about("the spoiled picture, where the data brings none as rejected_images"),
    ] = Cropped()


class Ddpo(Node):
    """DPO with a larger weight on the tokens that a correction changed [Yu et al. 2023, RLHF-V, DDPO]."""

    kind: Literal["ddpo"] = "ddpo"
    beta: Beta = 0.5
    gamma: Annotated[Positive, about("weight of a changed token [Yu et al. 2023: 5]")] = 5.0
    average: Annotated[Switch, about("divide by the sum of weights [Yu et al. 2023]")] = True
    muffin_compat: Annotated[Switch, about("find the changes as the released code does")] = False


class Reward(Node):
    """A reward model: a head on the model says how good an answer is [paper eq. 1; Stiennon et al. 2020]."""

    kind: Literal["reward"] = "reward"
    center: Annotated[
        NonNegative, about("weight of (r+ + r-)^2, which keeps rewards around 0 [Eisenstein et al. 2023: 0.01]")
    ] = 0.01
    margin: Annotated[
        NonNegative,
        about("how far rewards have to be apart per point between the answers' ratings [Touvron et al. 2023]"),
    ] = 0.0


class Sft(Node):
    """Supervised fine-tuning on the chosen answers, the control of every alignment."""

    kind: Literal["sft"] = "sft"


Objective = Annotated[
    Dpo | Ipo | Slic | CalibratedSlic | Gpo | Dpop | Rpo | Mdpo | Ddpo | Reward | Sft, Field(discriminator="kind")
]
