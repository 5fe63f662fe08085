"""The catalogue: a literal dictionary from a name to a builder. A builder's keyword-only arguments are its options."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longflow.errors import UsageError, choose, nearest
from longflow.families import Coder, FlowMatching, InformationBottleneck, ManifoldLikelihood, MutualInformation
from longflow.models import (
    bnvae,
    clustervae,
    cvae,
    ffjord,
    fm,
    fvae,
    glow,
    iaf,
    infomax,
    iresnet,
    maf,
    naf,
    nice,
    nsf,
    nvae,
    realnvp,
    rectangular,
    residualflow,
    vae,
    vib,
)
from longflow.objectives import ELBO, HierarchicalELBO


@dataclass(frozen=True)
class Published:
    """What is published of a preset's size, for events of a shape."""

    shape: tuple[int, ...]
    parameters: str


@dataclass(frozen=True)
class Model:
    """A builder, what it is, its presets (named sets of options), and what is published of their sizes.

    `objective`, where it is given, trains the model, and its fields are flags beside the builder's options; else the
    model is trained by its likelihood.
    """

    builder: Callable[..., Coder]
    about: str
    presets: Mapping[str, Mapping[str, Any]]
    published: Mapping[str, Published]
    objective: type[ELBO | FlowMatching | InformationBottleneck | ManifoldLikelihood | MutualInformation] | None = None
    by_loss: bool = False
    """Whether its own objective validates it, as its likelihood costs far more than a step of training."""

    represents: bool = False
    """Whether it builds a `Representation`, which has codes and no density."""

    @property
    def options(self) -> dict[str, Any]:
        """The builder's options with their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def takes_levels(self) -> bool:
        """Whether the builder wants to know the levels of the data."""
        return "levels" in inspect.signature(self.builder).parameters

    def resolve(self, preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options: the defaults, under the preset's, under those given."""
        for name in options:
            if name not in self.options:
                raise UsageError(
                    f"unknown option '{name}'{nearest(name, self.options)} (known: {', '.join(self.options)})"
                )
        return {**self.options, **self.preset(preset), **options}

    def preset(self, name: str | None) -> Mapping[str, Any]:
        """Return the options of a preset; none for None."""
        return self.presets[choose("preset", name, self.presets)] if name else {}


CATALOGUE: dict[str, Model] = {
    "nice": Model(
        nice.nice,
        "additive couplings and a diagonal scale (Dinh, Krueger & Bengio 2015)",
        nice.PRESETS,
        {"paper": Published((1, 28, 28), 'none in the paper; "4 x 5 x 1000² = 20 million" in the essay')},
    ),
    "realnvp": Model(
        realnvp.realnvp,
        "affine couplings of checkerboards and channels (Dinh, Sohl-Dickstein & Bengio 2017)",
        realnvp.PRESETS,
        {
            "cifar10": Published((3, 32, 32), "none in the paper; 19.5 million by arithmetic from its text"),
            "cifar10-narrow": Published((3, 32, 32), "6.4 million for CIFAR-10, in secondary tables"),
            "imagenet32": Published((3, 32, 32), "46.2 million, in secondary tables"),
        },
    ),
    "glow": Model(
        glow.glow,
        "1x1 convolutions, multi-scale, for pictures (Kingma & Dhariwal 2018)",
        glow.PRESETS,
        {
            "cifar10": Published((3, 32, 32), "44.0 million; 44.2 counting both triangles of PLU, as here"),
            "essay": Published((3, 32, 32), "7.06 million, by arithmetic from the essay's code"),
        },
    ),
    "maf": Model(
        maf.maf,
        "masked autoregressive layers, for densities of tables (Papamakarios, Pavlakou & Murray 2017)",
        maf.PRESETS,
        {},
    ),
    "iaf": Model(
        iaf.iaf,
        "inverse autoregressive layers, for fast samples (Kingma et al. 2016)",
        iaf.PRESETS,
        {},
    ),
    "nsf": Model(
        nsf.nsf,
        "rational-quadratic splines, coupling or autoregressive, for tables (Durkan et al. 2019)",
        nsf.PRESETS,
        {"power": Published((6,), "2.8 million, by arithmetic from the paper's settings")},
    ),
    "iresnet": Model(
        iresnet.iresnet,
        "residual blocks made invertible, and a classifier (Behrmann et al. 2019)",
        iresnet.PRESETS,
        {
            "cifar10": Published((3, 32, 32), "50.1 million, by arithmetic from the paper's description"),
            "script": Published((3, 32, 32), "25.0 million, by arithmetic from its code's script"),
            "classifier": Published((3, 32, 32), "4.87 million, by its code's script, without our prior of 32,768"),
        },
    ),
    "residualflow": Model(
        residualflow.residualflow,
        "residual blocks with an unbiased log-determinant (Chen et al. 2019)",
        residualflow.PRESETS,
        {
            "cifar10": Published((3, 32, 32), "25.2 million"),
            "mnist": Published((1, 28, 28), "16.6 million"),
            "imagenet32": Published((3, 32, 32), "47.1 million"),
        },
    ),
    "ffjord": Model(
        ffjord.ffjord,
        "continuous flows with free-form fields, trained by likelihood (Grathwohl et al. 2019)",
        {},
        {},
    ),
    "fm": Model(
        fm.fm,
        "flow matching: a continuous flow trained without solving it (Lipman et al. 2023; Liu et al. 2023)",
        {},
        {},
        FlowMatching,
        by_loss=True,
    ),
    "naf": Model(
        naf.naf,
        "autoregressive, each feature moved by a monotone network (Huang et al. 2018)",
        naf.PRESETS,
        {},
    ),
    "vae": Model(
        vae.vae,
        "variational autoencoder of any likelihood, posterior and prior (Kingma & Welling 2014)",
        vae.PRESETS,
        {},
        ELBO,
    ),
    "cvae": Model(
        cvae.cvae,
        "variational autoencoder whose prior has a mean and a deviation for each class (Su Jianlin's essay: a mean)",
        cvae.PRESETS,
        {},
        ELBO,
    ),
    "rectangular": Model(
        rectangular.rectangular,
        "a manifold of fewer dimensions and the density on it (Caterini et al. 2021)",
        {},
        {},
        ManifoldLikelihood,
    ),
    "clustervae": Model(
        clustervae.clustervae,
        "variational autoencoder that clusters its data in one step (Su Jianlin's essay)",
        clustervae.PRESETS,
        {},
        ELBO,
    ),
    "bnvae": Model(
        bnvae.bnvae,
        "variational autoencoder whose codes are normalised over batches (Zhu et al. 2020)",
        bnvae.PRESETS,
        {},
        ELBO,
    ),
    "fvae": Model(
        fvae.fvae,
        "a flow between an encoder and a decoder (Su & Wu 2018)",
        fvae.PRESETS,
        {"paper": Published((3, 128, 128), "95.8 million, by arithmetic from the paper's code")},
        ELBO,
    ),
    "vib": Model(
        vib.vib,
        "classes from a code that says little: variational information bottleneck (Alemi et al. 2017)",
        vib.PRESETS,
        {},
        InformationBottleneck,
        represents=True,
    ),
    "infomax": Model(
        infomax.infomax,
        "codes without labels or decoder: Deep InfoMax with a prior (Hjelm et al. 2019)",
        infomax.PRESETS,
        {},
        MutualInformation,
        represents=True,
    ),
    "nvae": Model(
        nvae.nvae,
        "small, honest NVAE: groups of latents at several scales, coarse to fine (Vahdat & Kautz 2020)",
        nvae.PRESETS,
        {},
        HierarchicalELBO,
    ),
}


def build(
    name: str, shape: tuple[int, ...], *, preset: str | None = None, levels: int | None = None, **options: Any
) -> Coder:
    """Build the density of continuous events of the given shape, in their own units.

    Of some models, with `levels`, it is the distribution of events of so many levels, as its likelihood says. Of those
    that learn a representation it is no density, but a `Representation`.

    Raises UsageError for an unknown name, preset, option or value, naming the nearest valid one.
    """
    model = CATALOGUE[choose("model", name, CATALOGUE)]
    if not isinstance(shape, Sequence) or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"expected a shape, a tuple of positive whole numbers; {shape!r} came")
    shape = tuple(shape)
    resolved = model.resolve(preset, options)
    built = model.builder(shape, **({"levels": levels} if model.takes_levels else {}), **resolved)
    built.config = {
        "model": name,
        "options": resolved,
        "shape": list(shape),
        "preprocess": "none",
        "levels": levels if built.levels else None,
    }
    return built
