"""What a job can name: data sets, models, optimizers and schedules, each with its parameters and their bounds.

Torch-free, because the API validates without torch; `workers.training` maps the same names to builders, and a test
holds the two sets of names equal. Every class here is a choice: `name` picks it, `params` configures it, and the
class attributes say what else the API must know about it before anything is trained. It is long because it is a table.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from service.specs.base import Frozen, Kind, unfit
from service.specs.patterns import OWN_NAME

Resplits = Literal["all", "validation", "nothing"]

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
WeightDecay = Annotated[float, Field(ge=0, le=100)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Betas = Annotated[tuple[Decay, Decay], Field(strict=False)]  # JSON has lists only
Widths = Annotated[tuple[Width, ...], Field(strict=False, max_length=64)]


def _named(value: Any) -> Any:
    """A bare string stands for a name with default parameters."""
    return {"name": value} if isinstance(value, str) else value


# --- data sets -------------------------------------------------------------------------------------------------------


class DatasetParams(Frozen):
    """Parameters of every data set that splits validation off its training records."""

    split_seed: Seed = Field(0, description="Seed of the split of validation from training records.")
    limit: int | None = Field(
        None, ge=10, le=10**8, description="Use only this many training records, drawn by `split_seed`; null: all."
    )


class DigitsParams(DatasetParams):
    """800 records train, 200 validate and 797 test, stratified by class.

    `seeded` draws all three by `split_seed`. `fixed_test` draws training and validation records by `split_seed`, and
    the test records are those of `seeded` with seed 0, whatever the seed: for a search whose choice is tested on other
    splits. `golden` is the one split of the reference table in docs/ko.md, which is not stratified.
    """

    split: Literal["seeded", "fixed_test", "golden"] = Field(
        "seeded",
        description="Which records train, validate and test: all drawn by `split_seed`, drawn beside the same test "
        "records for every `split_seed`, or the one split of the reference table.",
    )


class AugmentedParams(DatasetParams):
    """Image sets that are usually trained with random crops and flips."""

    augment: bool = Field(False, description="Random crop with padding 4 and horizontal flip of training images.")


class FolderParams(DatasetParams):
    """Images read from class folders, one file a record."""

    image_size: int = Field(224, ge=32, le=512, description="Side of the square crop, in pixels.")


class TextParams(DatasetParams):
    """Texts become lower-case words; the vocabulary is the training split's most frequent words."""

    vocabulary_size: int = Field(20_000, ge=2, le=1_000_000, description="Words kept; the others read as unknown.")
    max_length: int = Field(256, ge=1, le=4096, description="Words read of a text; the rest is cut off.")


class SnipsParams(TextParams):
    """Snips brings its own validation split; texts are short."""

    max_length: int = Field(32, ge=1, le=4096, description="Words read of a text; the rest is cut off.")


class Dataset(Frozen):
    """A named data set: what kind of input it has, how many classes and training records, and where it comes from.

    Of one that somebody registered (`OwnDataset`), classes and records are in its description
    (`service.datasets.layouts`).
    """

    kind: ClassVar[Kind]
    classes: ClassVar[int]
    train_records: ClassVar[int]
    """Records of the published training set, before validation is split off."""
    title: ClassVar[str]

    @property
    def resplits(self) -> Resplits:
        """What another `split_seed` draws anew: all three parts, validation out of the training records, or nothing."""
        return "validation"


class Digits(Dataset):
    """scikit-learn's 8 x 8 digits; ships with the package."""

    kind, classes, train_records, title = "image", 10, 1000, "scikit-learn digits, 8 x 8 grey, 1,797 records"
    name: Literal["digits"] = "digits"
    params: DigitsParams = DigitsParams()

    @property
    def resplits(self) -> Resplits:
        """See `DigitsParams`."""
        by_split: dict[str, Resplits] = {"seeded": "all", "fixed_test": "validation", "golden": "nothing"}
        return by_split[self.params.split]


class Mnist(Dataset):
    """MNIST."""

    kind, classes, train_records, title = "image", 10, 60_000, "MNIST, 28 x 28 grey (LeCun et al. 1998)"
    name: Literal["mnist"] = "mnist"
    params: DatasetParams = DatasetParams()


class FashionMnist(Dataset):
    """Fashion-MNIST."""

    kind, classes, train_records, title = "image", 10, 60_000, "Fashion-MNIST, 28 x 28 grey (Xiao et al. 2017)"
    name: Literal["fashion_mnist"] = "fashion_mnist"
    params: DatasetParams = DatasetParams()


class Cifar10(Dataset):
    """CIFAR-10."""

    kind, classes, train_records, title = "image", 10, 50_000, "CIFAR-10, 32 x 32 colour (Krizhevsky 2009)"
    name: Literal["cifar10"] = "cifar10"
    params: AugmentedParams = AugmentedParams()


class Cifar100(Dataset):
    """CIFAR-100, fine labels."""

    kind, classes, train_records, title = "image", 100, 50_000, "CIFAR-100, 32 x 32 colour (Krizhevsky 2009)"
    name: Literal["cifar100"] = "cifar100"
    params: AugmentedParams = AugmentedParams()


class ImageNet(Dataset):
    """ImageNet, or any folder of the same layout: `imagenet/{train,val}/CLASS/*`; `val` serves as the test set."""

    kind, classes, train_records, title = "image", 1000, 1_281_167, "ImageNet-1k class folders (Deng et al. 2009)"
    name: Literal["imagenet"] = "imagenet"
    params: FolderParams = FolderParams()


class Imdb(Dataset):
    """IMDB movie reviews."""

    kind, classes, train_records, title = "text", 2, 25_000, "IMDB movie reviews (Maas et al. 2011)"
    name: Literal["imdb"] = "imdb"
    params: TextParams = TextParams()


class Snips(Dataset):
    """Snips voice-assistant intents."""

    kind, classes, train_records, title = "text", 7, 13_084, "Snips intents (Coucke et al. 2018)"
    name: Literal["snips"] = "snips"
    params: SnipsParams = SnipsParams()

    @property
    def resplits(self) -> Resplits:
        """Its validation file is given."""
        return "nothing"


OwnImagesName = Annotated[str, Field(pattern=f"^images/{OWN_NAME}$")]
OwnTextsName = Annotated[str, Field(pattern=f"^texts/{OWN_NAME}$")]
OwnTableName = Annotated[str, Field(pattern=f"^tables/{OWN_NAME}$")]


class OwnDataset(Dataset):
    """A data set that somebody registered; the first part of its name is its kind."""


class OwnImages(OwnDataset):
    """Images of one size."""

    kind, title = "image", "images that somebody registered"
    name: OwnImagesName
    params: DatasetParams = DatasetParams()


class OwnTexts(OwnDataset):
    """Labelled texts."""

    kind, title = "text", "texts that somebody registered"
    name: OwnTextsName
    params: TextParams = TextParams()


class OwnTable(OwnDataset):
    """Rows of numbers."""

    kind, title = "table", "rows of numbers that somebody registered"
    name: OwnTableName
    params: DatasetParams = DatasetParams()


# --- models ----------------------------------------------------------------------------------------------------------


class NoParams(Frozen):
    """Nothing to set."""


class ScaledParams(Frozen):
    """Models whose initial weights can be shrunk towards zero, where neurons condense."""

    init_scale: float = Field(1.0, gt=0, le=100, description="Multiplies the initial weights and biases.")


class MlpParams(ScaledParams):
    """Fully connected ReLU layers on the flattened image, or on a row of numbers."""

    hidden: Widths = Field((256, 256), description="Width of each hidden layer.")


class CnnParams(ScaledParams):
    """3 x 3 convolutions with ReLU and 2 x 2 pooling, then one linear layer."""

    channels: Annotated[tuple[Width, ...], Field(strict=False, min_length=1, max_length=8)] = Field(
        (32, 64, 128), description="Output channels of each convolution."
    )


class TextCnnParams(ScaledParams):
    """Kim's convolutional sentence classifier (2014)."""

    embedding: Width = Field(128, description="Dimensions of a word vector.")
    channels: Width = Field(100, description="Filters per kernel size.")
    kernel_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(strict=False, min_length=1, max_length=8)
    ] = Field((3, 4, 5), description="Words seen by a filter.")
    dropout: Decay = Field(0.5, description="Share of features dropped before the last layer.")


class LstmParams(Frozen):
    """One or more LSTM layers over the words; the last word's state is classified."""

    embedding: Width = Field(128, description="Dimensions of a word vector.")
    hidden: Width = Field(128, description="Dimensions of the state, per direction.")
    layers: int = Field(1, ge=1, le=16)
    bidirectional: bool = True
    dropout: Decay = Field(0.0, description="Share of features dropped before the last layer.")


class TransformerParams(Frozen):
    """A small pre-norm encoder with learned positions and mean pooling."""

    width: Width = Field(128, description="Dimensions of a token; a multiple of `heads`.")
    layers: int = Field(2, ge=1, le=64)
    heads: int = Field(4, ge=1, le=128)
    feedforward: Width = Field(256, description="Width of the feed-forward blocks.")
    dropout: Decay = 0.1

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise unfit("heads", f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Model(Frozen):
    """A named model and the kind of input it reads, and the others that it reads as well."""

    reads: ClassVar[Kind]
    also_reads: ClassVar[tuple[Kind, ...]] = ()
    title: ClassVar[str]


class Mlp(Model):
    """Multilayer perceptron."""

    reads, also_reads, title = "image", ("table",), "fully connected ReLU network"
    name: Literal["mlp"] = "mlp"
    params: MlpParams = MlpParams()


class Cnn(Model):
    """Small convolutional network."""

    reads, title = "image", "small convolutional network"
    name: Literal["cnn"] = "cnn"
    params: CnnParams = CnnParams()


class ResNet18(Model):
    """torchvision's ResNet-18."""

    reads, title = "image", "ResNet-18 (He et al. 2016), 3 x 3 stem up to 64 px"
    name: Literal["resnet18"] = "resnet18"
    params: NoParams = NoParams()


class ResNet34(Model):
    """torchvision's ResNet-34."""

    reads, title = "image", "ResNet-34 (He et al. 2016), 3 x 3 stem up to 64 px"
    name: Literal["resnet34"] = "resnet34"
    params: NoParams = NoParams()


class ResNet50(Model):
    """torchvision's ResNet-50."""

    reads, title = "image", "ResNet-50 (He et al. 2016), 3 x 3 stem up to 64 px"
    name: Literal["resnet50"] = "resnet50"
    params: NoParams = NoParams()


class TextCnn(Model):
    """Convolutional sentence classifier."""

    reads, title = "text", "convolutional sentence classifier (Kim 2014)"
    name: Literal["textcnn"] = "textcnn"
    params: TextCnnParams = TextCnnParams()


class Lstm(Model):
    """LSTM sentence classifier."""

    reads, title = "text", "LSTM sentence classifier"
    name: Literal["lstm"] = "lstm"
    params: LstmParams = LstmParams()


class Transformer(Model):
    """Small transformer encoder."""

    reads, title = "text", "small transformer encoder"
    name: Literal["transformer"] = "transformer"
    params: TransformerParams = TransformerParams()


# --- optimizers ------------------------------------------------------------------------------------------------------


class SgdParams(Frozen):
    """Stochastic gradient descent with momentum."""

    lr: LearningRate = Field(0.1, description="Learning rate.")
    momentum: Decay = 0.9
    nesterov: bool = False
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise unfit("nesterov", "nesterov needs a momentum above 0")
        return self


class AdamParams(Frozen):
    """Adam (Kingma and Ba 2015)."""

    lr: LearningRate = Field(1e-3, description="Learning rate.")
    betas: Betas = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class AdamWParams(AdamParams):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: WeightDecay = Field(0.01, description="Decoupled weight decay.")


class NadamWParams(AdamWParams):
    """Adam with Nesterov momentum (Dozat 2016) and decoupled weight decay."""

    lr: LearningRate = Field(2e-3, description="Learning rate.")
    momentum_decay: Decay = 4e-3


class RadamParams(AdamParams):
    """Adam with rectified variance (Liu et al. 2020)."""


class RmspropParams(Frozen):
    """RMSprop (Hinton 2012)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    alpha: Decay = 0.99
    eps: Epsilon = 1e-8
    momentum: Decay = 0.0
    centered: bool = False
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class AdagradParams(Frozen):
    """Adagrad (Duchi et al. 2011)."""

    lr: LearningRate = Field(1e-2, description="Learning rate.")
    lr_decay: Decay = 0.0
    eps: Epsilon = 1e-10
    weight_decay: WeightDecay = Field(0.0, description="L2 penalty added to the gradient.")


class MuonParams(Frozen):
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, head, norms and biases."""

    lr: LearningRate = Field(0.02, description="Learning rate of the hidden matrices.")
    momentum: Decay = 0.95
    nesterov: bool = True
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")
    adamw_lr: LearningRate = Field(1e-3, description="Learning rate of the parameters that AdamW trains.")


class LionParams(Frozen):
    """Lion (Chen et al. 2023)."""

    lr: LearningRate = Field(1e-4, description="Learning rate.")
    betas: Betas = (0.9, 0.99)
    weight_decay: WeightDecay = Field(0.0, description="Decoupled weight decay.")


class Collision(Frozen):
    """The collision that KO adds before its base optimizer's step."""

    collision: Literal["soft", "hard", "none"] = Field("soft", description="Form of the collision.")
    gamma: float = Field(0.1, ge=0, le=100, description="Strength of a soft collision.")
    bounded: bool = Field(False, description="Cap gamma so that a layer's gradient stays a descent direction.")
    rate: Probability = Field(0.5, description="Rate of hard collisions.")
    group_size: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Rows of a layer that meet at a time in a soft collision, in random groups; null: all.",
    )
    embeddings: bool = Field(False, description="Collide word vectors, too; soft collisions in random groups of 64.")
    fade: Literal["none", "cosine", "linear"] = Field(
        "none", description="How gamma and rate fall to 0 over the budget; `none`: they stay."
    )


class KoSgdParams(Collision, SgdParams):
    """KO on SGD."""

    base: Literal["sgd"] = "sgd"


class KoAdamParams(Collision, AdamParams):
    """KO on Adam."""

    base: Literal["adam"] = "adam"


class KoAdamWParams(Collision, AdamWParams):
    """KO on AdamW."""

    base: Literal["adamw"] = "adamw"


class KoNadamWParams(Collision, NadamWParams):
    """KO on NAdamW."""

    base: Literal["nadamw"] = "nadamw"


class KoRadamParams(Collision, RadamParams):
    """KO on RAdam."""

    base: Literal["radam"] = "radam"


class KoRmspropParams(Collision, RmspropParams):
    """KO on RMSprop."""

    base: Literal["rmsprop"] = "rmsprop"


class KoAdagradParams(Collision, AdagradParams):
    """KO on Adagrad."""

    base: Literal["adagrad"] = "adagrad"


class KoMuonParams(Collision, MuonParams):
    """KO on Muon."""

    base: Literal["muon"] = "muon"


class KoLionParams(Collision, LionParams):
    """KO on Lion."""

    base: Literal["lion"] = "lion"


def _base_of(params: Any) -> Any:
    """The base of KO, or of a control, decides which other parameters it takes; Adam where none is named."""
    return params.get("base", "adam") if isinstance(params, dict) else getattr(params, "base", None)


KoParams = Annotated[
    Annotated[KoSgdParams, Tag("sgd")]
    | Annotated[KoAdamParams, Tag("adam")]
    | Annotated[KoAdamWParams, Tag("adamw")]
    | Annotated[KoNadamWParams, Tag("nadamw")]
    | Annotated[KoRadamParams, Tag("radam")]
    | Annotated[KoRmspropParams, Tag("rmsprop")]
    | Annotated[KoAdagradParams, Tag("adagrad")]
    | Annotated[KoMuonParams, Tag("muon")]
    | Annotated[KoLionParams, Tag("lion")],
    Discriminator(_base_of),
]


STRENGTHS = {"noise": 0.1, "orthogonality": 1e-4}
"""Control -> its strength unless one is given: KO's gamma, and the penalty that benchmarks/claims.py chose."""


class ControlOptions(Frozen):
    """The simple alternative that takes the collision's place before the base optimizer's step."""

    control: Literal["noise", "orthogonality", "centralization"] = Field(
        "noise",
        description="noise: Gaussian noise as long as what a soft collision would have added. orthogonality: the "
        "gradient of a penalty on rows of a layer that point the same way. centralization: the mean is taken out of "
        "each row's gradient.",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=100,
        description="noise: gamma of that collision (0.1 if absent). orthogonality: factor of the sum over all pairs "
        "of rows of their squared cosine (0.0001 if absent). centralization: null, for it has none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _usual_strength(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "strength" in given:
            return given
        return {**given, "strength": STRENGTHS.get(str(given.get("control", "noise")))}

    @model_validator(mode="after")
    def _strength_fits_control(self) -> Self:
        if self.control not in STRENGTHS and self.strength is not None:
            raise unfit("strength", f"{self.control} has no strength: leave it out")
        if self.control in STRENGTHS and self.strength is None:
            raise unfit("strength", f"{self.control} needs a strength, such as {STRENGTHS[self.control]:g}")
        return self


class ControlSgdParams(ControlOptions, SgdParams):
    """A control on SGD."""

    base: Literal["sgd"] = "sgd"


class ControlAdamParams(ControlOptions, AdamParams):
    """A control on Adam."""

    base: Literal["adam"] = "adam"


class ControlAdamWParams(ControlOptions, AdamWParams):
    """A control on AdamW."""

    base: Literal["adamw"] = "adamw"


ControlParams = Annotated[
    Annotated[ControlSgdParams, Tag("sgd")]
    | Annotated[ControlAdamParams, Tag("adam")]
    | Annotated[ControlAdamWParams, Tag("adamw")],
    Discriminator(_base_of),
]


class Optimizer(Frozen):
    """A named optimizer."""

    title: ClassVar[str]


class Sgd(Optimizer):
    """SGD with momentum."""

    title = "SGD with momentum"
    name: Literal["sgd"] = "sgd"
    params: SgdParams = SgdParams()


class Adam(Optimizer):
    """Adam."""

    title = "Adam (Kingma and Ba 2015)"
    name: Literal["adam"] = "adam"
    params: AdamParams = AdamParams()


class AdamW(Optimizer):
    """AdamW."""

    title = "AdamW (Loshchilov and Hutter 2019)"
    name: Literal["adamw"] = "adamw"
    params: AdamWParams = AdamWParams()


class NadamW(Optimizer):
    """NAdamW."""

    title = "NAdam (Dozat 2016) with decoupled weight decay"
    name: Literal["nadamw"] = "nadamw"
    params: NadamWParams = NadamWParams()


class Radam(Optimizer):
    """RAdam."""

    title = "RAdam (Liu et al. 2020)"
    name: Literal["radam"] = "radam"
    params: RadamParams = RadamParams()


class Rmsprop(Optimizer):
    """RMSprop."""

    title = "RMSprop (Hinton 2012)"
    name: Literal["rmsprop"] = "rmsprop"
    params: RmspropParams = RmspropParams()


class Adagrad(Optimizer):
    """Adagrad."""

    title = "Adagrad (Duchi et al. 2011)"
    name: Literal["adagrad"] = "adagrad"
    params: AdagradParams = AdagradParams()


class Muon(Optimizer):
    """Muon with AdamW for the rest."""

    title = "Muon (Jordan et al. 2024), AdamW for the rest"
    name: Literal["muon"] = "muon"
    params: MuonParams = MuonParams()


class Lion(Optimizer):
    """Lion."""

    title = "Lion (Chen et al. 2023)"
    name: Literal["lion"] = "lion"
    params: LionParams = LionParams()


class Ko(Optimizer):
    """The kinetics-inspired optimizer on any of the others."""

    title = "KO, kinetics-inspired (arXiv 2505.14777), on a base optimizer"
    name: Literal["ko"] = "ko"
    params: KoParams = KoAdamParams()


class Control(Optimizer):
    """What KO is to be compared with: noise, a penalty, or centralized gradients. Weight decay is AdamW."""

    title = "a simple alternative to a collision, as a control, on a base optimizer"
    name: Literal["control"] = "control"
    params: ControlParams = ControlAdamParams()


# --- schedules -------------------------------------------------------------------------------------------------------


class ScheduleParams(Frozen):
    """Every schedule can start with a linear warm-up from 0."""

    warmup_steps: int = Field(0, ge=0, le=10**7, description="Steps over which the learning rate rises from 0.")


class DecayParams(ScheduleParams):
    """Schedules that end at a share of the learning rate."""

    final_fraction: float = Field(0.0, ge=0, le=1, description="Learning rate at the end, as a share of the start.")


class StepParams(ScheduleParams):
    """The learning rate is multiplied by `factor` at each milestone."""

    milestones: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1, max_length=32)] = Field(
        (0.5, 0.75), description="When to multiply, as increasing shares of the budget."
    )
    factor: Fraction = 0.1

    @model_validator(mode="after")
    def _milestones_increase(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise unfit("milestones", "milestones must increase")
        return self


class Schedule(Frozen):
    """How the learning rate changes over the budget."""

    title: ClassVar[str]


class Constant(Schedule):
    """Always the same."""

    title = "constant"
    name: Literal["constant"] = "constant"
    params: ScheduleParams = ScheduleParams()


class Cosine(Schedule):
    """Half a cosine period."""

    title = "half a cosine period down to `final_fraction` (Loshchilov and Hutter 2017)"
    name: Literal["cosine"] = "cosine"
    params: DecayParams = DecayParams()


class Linear(Schedule):
    """A straight line."""

    title = "a straight line down to `final_fraction`"
    name: Literal["linear"] = "linear"
    params: DecayParams = DecayParams()


class Step(Schedule):
    """Steps down at milestones."""

    title = "multiplied by `factor` at each milestone"
    name: Literal["step"] = "step"
    params: StepParams = StepParams()


OWN: dict[str, type[OwnDataset]] = {"images": OwnImages, "texts": OwnTexts, "tables": OwnTable}
"""First part of the name -> its choice; what follows is the user's."""


def _chosen_dataset(value: Any) -> str | None:
    """The tag of a choice: a built-in name, or the kind of somebody's own set."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None if name is None else str(name)
    kind, slash, _ = name.partition("/")
    return f"{kind}/NAME" if slash and kind in OWN else name


DatasetChoice = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[Mnist, Tag("mnist")]
    | Annotated[FashionMnist, Tag("fashion_mnist")]
    | Annotated[Cifar10, Tag("cifar10")]
    | Annotated[Cifar100, Tag("cifar100")]
    | Annotated[ImageNet, Tag("imagenet")]
    | Annotated[Imdb, Tag("imdb")]
    | Annotated[Snips, Tag("snips")]
    | Annotated[OwnImages, Tag("images/NAME")]
    | Annotated[OwnTexts, Tag("texts/NAME")]
    | Annotated[OwnTable, Tag("tables/NAME")],
    Discriminator(_chosen_dataset),
    BeforeValidator(_named),
]
ModelChoice = Annotated[
    Mlp | Cnn | ResNet18 | ResNet34 | ResNet50 | TextCnn | Lstm | Transformer,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
OptimizerChoice = Annotated[
    Sgd | Adam | AdamW | NadamW | Radam | Rmsprop | Adagrad | Muon | Lion | Ko | Control,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
ScheduleChoice = Annotated[Constant | Cosine | Linear | Step, Field(discriminator="name"), BeforeValidator(_named)]


def _by_name(*choices: type[Frozen]) -> dict[str, type[Any]]:
    return {choice.model_fields["name"].default: choice for choice in choices}


DATASETS: dict[str, type[Dataset]] = _by_name(Digits, Mnist, FashionMnist, Cifar10, Cifar100, ImageNet, Imdb, Snips)
MODELS: dict[str, type[Model]] = _by_name(Mlp, Cnn, ResNet18, ResNet34, ResNet50, TextCnn, Lstm, Transformer)
OPTIMIZERS: dict[str, type[Optimizer]] = _by_name(
    Sgd, Adam, AdamW, NadamW, Radam, Rmsprop, Adagrad, Muon, Lion, Ko, Control
)
SCHEDULES: dict[str, type[Schedule]] = _by_name(Constant, Cosine, Linear, Step)


def is_own(name: str) -> bool:
    """Whether `name` can be that of a data set that somebody registered."""
    return re.fullmatch(f"(?:{'|'.join(OWN)})/{OWN_NAME}", name) is not None


def dataset_class(name: str) -> type[Dataset]:
    """The choice of the data set `name`. Raises KeyError where no data set can have this name."""
    return OWN[name.partition("/")[0]] if is_own(name) else DATASETS[name]


def default_dataset(name: str) -> Dataset:
    """The data set `name` with default parameters. Raises KeyError as `dataset_class`."""
    return dataset_class(name).model_validate({"name": name})
