"""All ways to the gradient of a look-ahead that are compared, in the order of the tables."""

from benchmarks.peers.flowgrad import FlowGrad
from benchmarks.peers.invertible import BdiaWay, EdictWay
from benchmarks.peers.ode import Odeint, OdeintAdjoint, OdeintAdjointRatio
from benchmarks.peers.programs import Approximation, Autograd, Checkpoint, Sweep
from benchmarks.peers.sde import ReversibleHeun
from benchmarks.peers.way import Way

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
