"""All ways to the gradient of a look-ahead that are compared, in the order of the tables."""

from symguide.bench.flowgrad import FlowGrad
from symguide.bench.invertible import BdiaWay, EdictWay
from symguide.bench.ode import Odeint, OdeintAdjoint, OdeintAdjointRatio
from symguide.bench.programs import Approximation, Autograd, Checkpoint, Sweep
from symguide.bench.sde import ReversibleHeun
from symguide.bench.way import Way

WAYS: tuple[Way, ...] = (
    Sweep(0),
    Sweep("minimal"),
    Sweep(2),
    Sweep("fast"),
    Sweep("auto"),
    Approximation("first", "first call alone"),
    Approximation("identity", "identity (MPGD, ECM, FlowChef)"),
    Autograd(),
    Checkpoint(),
    Odeint(),
    OdeintAdjoint(),
    OdeintAdjointRatio(),
    ReversibleHeun(),
    EdictWay(),
    BdiaWay(),
    FlowGrad(),
)
