"""How answers are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from verisight.recipe.base import (
    Count,
    Fraction,
    Node,
    NonNegative,
    Positive,
    Share,
    Smoothing,
    Switch,
    about,
)
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


KlKind = Annotated[
    Literal["k1", "k2", "k3"],
    about("how the KL to the reference is estimated [Schulman 2020]; only k1 gives its gradient as part of a reward"),
]


class Rloo(Node):
    """REINFORCE, the other answers to a prompt as baseline [Ahmadian et al. 2024; paper eq. 2]."""

    kind: Literal["rloo"] = "rloo"
    beta: Annotated[
        NonNegative, about("weight of the KL to the reference in the reward, per nat [paper appendix A: 0.4]")
    ] = 0.4
    kl: KlKind = "k1"
    clip: Annotated[
        Share | None,
        about("ratios to the policy that drew are held within 1 +- this [Schulman et al. 2017]; empty: not"),
    ] = 0.2
    ratio: Annotated[
        Literal["sequence", "token"], about("whose ratios: the whole answer's [Ahmadian et al. 2024], or each token's")
    ] = "sequence"
    whiten: Annotated[Switch, about("divide advantages by their deviation over the batch")] = False


class Ppo(Node):
    """Proximal policy optimization [Schulman et al. 2017; for language models Ziegler et al. 2019]."""

    kind: Literal["ppo"] = "ppo"
    beta: Annotated[
        NonNegative, about("weight of the KL to the reference in the reward, per nat, at the start [TRL 0.11: 0.2]")
    ] = 0.2
    kl: KlKind = "k1"
    kl_target: Annotated[
        Positive | None,
        about("KL per answer that beta is steered to, nats [Ziegler et al. 2019: 6]; empty: beta stays"),
    ] = None
    horizon: Annotated[Count, about("answers over which beta changes by up to a fifth [Ziegler et al. 2019]")] = 10_000
    gamma: Annotated[Fraction, about("discount of a reward per token [Ziegler et al. 2019: 1]")] = 1.0
    lam: Annotated[Fraction, about("lambda of the advantages: 0 trusts the value function [Schulman et al. 2016]")] = (
        0.95
    )
    clip: Annotated[Share, about("ratios are held within 1 +- this [Schulman et al. 2017: 0.2]")] = 0.2
    value_clip: Annotated[
        Positive | None,
        about("values move at most so far from those of the draw [OpenAI baselines: 0.2]; empty: freely"),
    ] = 0.2
    value_weight: Annotated[NonNegative, about("weight of the value loss [Ziegler et al. 2019: 0.1]")] = 0.1
    entropy_weight: Annotated[
        NonNegative, about("weight of the entropy, which is made larger [Schulman et al. 2017: 0 to 0.01]")
    ] = 0.0
    value: Annotated[
        Literal["shared", "separate"],
        about("value function: a head on the policy [Schulman et al. 2017], or on a network of its own [Ouyang 2022]"),
    ] = "shared"
    value_lr: Annotated[Positive | None, about("peak learning rate of the value function; empty: train.lr")] = None
    whiten: Annotated[Switch, about("advantages of a batch get mean 0 and variance 1 [Ziegler et al. 2019]")] = True


class Sft(Node):
    """Supervised fine-tuning on the chosen answers, the control of every alignment."""

    kind: Literal["sft"] = "sft"


Objective = Annotated[
    Dpo | Ipo | Slic | CalibratedSlic | Gpo | Dpop | Rpo | Mdpo | Ddpo | Reward | Rloo | Ppo | Sft,
    Field(discriminator="kind"),
]
