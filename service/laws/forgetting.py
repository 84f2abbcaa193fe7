"""The paper's formulas and Table 1 (Kalajdzievski 2024, arXiv 2401.05605). Natural logarithms.

P counts fine-tuned parameters, N update steps. Table 1 is printed to four digits, which moves
L_ft by 0.004 and L_f by 0.007: ask no more of the two routes to L_f than to agree within that.
"""

import math
from dataclasses import dataclass

from service.laws.law import LawFit
from service.laws.quantities import LawError

LLAMA_2_7B_PARAMS_PER_RANK = 2_498_560
"""LoRA on the seven linear modules of every layer of Llama-2-7B: P = this times the rank."""
PAPER_RANKS = (8, 16, 32, 64, 128, 256)
PAPER_STEPS = (50, 260)
"""First and last step of the paper's fits."""


@dataclass(frozen=True)
class PaperLaw:
    """The three laws of one dataset, in the paper's own thirteen parameters."""

    a_f: float
    a_ft: float
    b_f: float
    b_ft: float
    c_ft: float
    c_f_ft: float
    s_ft: float
    s_f_ft: float
    alpha_f: float
    alpha_ft: float
    beta_f: float
    beta_ft: float
    rho: float

    def ft_loss(self, trainable_params: float, step: float) -> float:
        """L_ft(P, N) = c_ft [(a_ft/P)^alpha_ft + (b_ft/N)^beta_ft]^rho + s_ft."""
        params_term = (self.a_ft / trainable_params) ** self.alpha_ft
        step_term = (self.b_ft / step) ** self.beta_ft
        return self.c_ft * math.pow(params_term + step_term, self.rho) + self.s_ft

    def line(self, ft_loss: float) -> float:
        """L_f(L_ft) = -c_f_ft L_ft + s_f_ft."""
        return -self.c_f_ft * ft_loss + self.s_f_ft

    def forgetting(self, trainable_params: float, step: float) -> float:
        """L_f(P, N) = -c_f_ft {c_ft [(a_f/P)^alpha_f + (b_f/N)^beta_f]^rho + s_ft} + s_f_ft."""
        params_term = (self.a_f / trainable_params) ** self.alpha_f
        step_term = (self.b_f / step) ** self.beta_f
        return self.line(self.c_ft * math.pow(params_term + step_term, self.rho) + self.s_ft)

    def joint(self) -> dict[str, float]:
        """The same L_f(P, N) in the six identifiable numbers and their sign.

        c_f_ft c_ft goes into A and B, and s_f_ft - c_f_ft s_ft is the shift.
        """
        scale = (self.c_f_ft * self.c_ft) ** (1 / self.rho)
        return {
            "sign": -1.0,
            "A": scale * self.a_f**self.alpha_f,
            "alpha": self.alpha_f,
            "B": scale * self.b_f**self.beta_f,
            "beta": self.beta_f,
            "rho": self.rho,
            "shift": self.s_f_ft - self.c_f_ft * self.s_ft,
        }


OPENORCA = PaperLaw(
    a_f=0.0388e7,
    a_ft=0.0007e7,
    b_f=23.6418,
    b_ft=72.9186,
    c_ft=0.0020,
    c_f_ft=1.7334,
    s_ft=0.6126,
    s_f_ft=2.0481,
    alpha_f=0.0351,
    alpha_ft=0.0424,
    beta_f=0.1468,
    beta_ft=0.1219,
    rho=7.6885,
)
NEWS = PaperLaw(
    a_f=0.0011e7,
    a_ft=0.0022e7,
    b_f=97.8466,
    b_ft=54.8678,
    c_ft=0.0028,
    c_f_ft=1.0615,
    s_ft=1.9253,
    s_f_ft=3.1285,
    alpha_f=0.0458,
    alpha_ft=0.0383,
    beta_f=0.1044,
    beta_ft=0.1161,
    rho=7.5996,
)


def paper_parameters(joint: LawFit, linear: LawFit, *, c_ft: float = 1.0) -> dict[str, float]:
    """A fitted joint law in the paper's names: a_f, b_f, alpha_f, beta_f, rho, s_ft and the line.

    The joint law alone cannot tell c_ft from a and b, nor s_ft from s_f_ft: `linear` supplies
    c_f_ft and s_f_ft, and `c_ft` is the caller's choice (1 leaves it inside a and b; the paper's
    comes from its fit of L_ft). Then a_f = (A / (c_f_ft c_ft)^(1/rho))^(1/alpha), likewise b_f,
    and s_ft = (s_f_ft - shift) / c_f_ft. The curve does not depend on the choice.

    Raises LawError when the laws are of another form or metric, when forgetting falls with P and
    N or with falling loss, or when an exponent is so small that a_f or b_f overflows.
    """
    if (joint.form, linear.form) != ("joint", "linear") or joint.metric != linear.metric:
        raise LawError("needs a joint and a linear law of one metric")
    c_f_ft = linear.coefficients["c_f_ft"].value
    s_f_ft = linear.coefficients["s_f_ft"].value
    if joint.coefficients["sign"].value > 0 or c_f_ft <= 0 or c_ft <= 0:
        raise LawError("the paper's form needs sign -1, c_f_ft > 0 and c_ft > 0")
    named = {name: c.value for name, c in joint.coefficients.items()}
    log_scale = math.log(c_f_ft * c_ft) / named["rho"]
    try:
        a_f = math.exp((math.log(named["A"]) - log_scale) / named["alpha"])
        b_f = math.exp((math.log(named["B"]) - log_scale) / named["beta"])
    except OverflowError as error:
        raise LawError(
            f"a_f or b_f overflows: alpha {named['alpha']:g}, beta {named['beta']:g}"
        ) from error
    return {
        "a_f": a_f,
        "b_f": b_f,
        "c_ft": c_ft,
        "c_f_ft": c_f_ft,
        "s_ft": (s_f_ft - named["shift"]) / c_f_ft,
        "s_f_ft": s_f_ft,
        "alpha_f": named["alpha"],
        "beta_f": named["beta"],
        "rho": named["rho"],
    }
