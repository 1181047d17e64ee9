"""Private parts of other libraries: each is fetched in one place, and its absence is one sentence with the version."""

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch
from torch import nn

import symguide
from symguide.errors import ConfigError
from symguide.private import diffusers as of_diffusers
from symguide.private import torch as of_torch

SOURCE = Path(symguide.__file__).parent
BARE = SimpleNamespace()  # an instance of a class that has nothing

PARTS = {
    "torch.utils._pytree.tree_map": lambda: of_torch.tree_map(abs, [1]),
    "torch.utils._pytree.tree_leaves": lambda: of_torch.leaves([1]),
    "torch.utils._python_dispatch.TorchDispatchMode": of_torch.dispatch_mode,
    "torch.utils.flop_counter.flop_registry": lambda: of_torch.flops(torch.ops.aten.mm.default),
    "torch.utils.checkpoint.CheckpointFunction": of_torch.reentrant_checkpoint,
    "torch.autograd.function.BackwardCFunction": of_torch.python_function,
}
"""What is fetched from a module, and what fetches it."""

ATTRIBUTES = {
    "torch.Tensor._base": lambda: of_torch.base(BARE),
    "torch.Tensor._version": lambda: of_torch.version(BARE),
    "torch.UntypedStorage._cdata": lambda: of_torch.storage_id(BARE),
    "torch._ops.OpOverload._overloadpacket": lambda: of_torch.flops(BARE),
    "torch.nn.Module._forward_hooks": lambda: of_torch.hooks(BARE),
    "torch.autograd.function.BackwardCFunction._forward_cls": lambda: of_torch.function_of(BARE),
    "diffusers.SimpleNamespace._guidance_scale_2": lambda: of_diffusers.second_scale(BARE),
    "diffusers.SimpleNamespace._unpack_latents": lambda: of_diffusers.unpack(BARE),
    "diffusers.hooks.HookRegistry.hooks": lambda: of_diffusers.in_offloaded_group(
        SimpleNamespace(_diffusers_hook=BARE)
    ),
    "diffusers.ModelMixin._supports_gradient_checkpointing": lambda: of_diffusers.can_checkpoint(
        SimpleNamespace(enable_gradient_checkpointing=None)
    ),
}
"""What is asked of an instance, and what asks it of one that has nothing."""


def refused(name, call):
    library = sys.modules[name.split(".")[0]]
    with pytest.raises(ConfigError) as caught:
        call()
    assert re.fullmatch(
        re.escape(f"{library.__name__} {library.__version__} has no {name}, which symguide needs ")
        + r"[^.:]*: install a version that docs/versions\.md names",
        str(caught.value),
    )


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_one_sentence(name, monkeypatch):
    assert PARTS[name]() is None or PARTS[name]() is not None  # this version has it
    module, _, attribute = name.rpartition(".")
    monkeypatch.delattr(sys.modules[module], attribute)
    refused(name, PARTS[name])


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_missing_attribute_is_one_sentence(name):
    refused(name, ATTRIBUTES[name])


def test_a_missing_operator_is_one_sentence(monkeypatch):
    name = "torch.ops.aten._scaled_dot_product_efficient_attention"
    if torch.__version__ >= (2, 5):
        assert callable(of_torch.efficient_attention())
    with monkeypatch.context() as old:
        old.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda *which: False)
        refused(f"{name} on meta tensors", of_torch.efficient_attention)
    monkeypatch.setattr(torch.ops, "aten", BARE)
    refused(name, of_torch.efficient_attention)


@pytest.mark.parametrize("kind", of_diffusers.STATE)
def test_schedulers_that_lack_their_state_are_refused(kind):
    if hasattr(diffusers, kind) and kind != "DPMSolverSDEScheduler":  # which needs torchsde
        scheduler = getattr(diffusers, kind)()
        scheduler.set_timesteps(4)
        of_diffusers.check_state(scheduler)
    lacking = type(kind, (), {})()
    refused(f"diffusers.{kind}.{of_diffusers.STATE[kind][0]}", lambda: of_diffusers.check_state(lacking))
    of_diffusers.check_state(type("EulerDiscreteScheduler", (), {})())


def test_what_is_there_is_what_it_should_be():
    x = torch.ones(4, requires_grad=True)
    view = x[1:]
    assert of_torch.base(view) is x and of_torch.base(x) is None
    assert of_torch.storage_id(view.untyped_storage()) == of_torch.storage_id(x.untyped_storage())
    assert of_torch.storage_id(torch.ones(4).untyped_storage()) != of_torch.storage_id(x.untyped_storage())
    changed = torch.ones(2)
    before = of_torch.version(changed)
    changed.add_(1)
    assert of_torch.version(changed) == before + 1

    assert of_torch.flops(torch.ops.aten.mm.default)((2, 3), (3, 5), out_val=torch.ones(2, 5)) == 2 * 2 * 3 * 5
    assert of_torch.flops(torch.ops.aten.sin.default) is None

    module = nn.Linear(2, 2)
    assert of_torch.hooks(module) == []
    module.register_forward_pre_hook(print)
    module.register_full_backward_hook(print)
    assert len(of_torch.hooks(module)) == 2

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, cotangent):
            return 2 * cotangent

    node = Doubled.apply(x).grad_fn
    assert isinstance(node, of_torch.python_function()) and of_torch.function_of(node) is Doubled
    assert not isinstance(x.sin().grad_fn, of_torch.python_function())


def test_hooks_in_force(monkeypatch):
    pack, unpack = abs, repr
    assert of_torch.saved_tensor_hooks() is None
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        if hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):
            assert of_torch.saved_tensor_hooks() == (pack, unpack)
            monkeypatch.delattr(torch._C._autograd, "_top_saved_tensors_default_hooks")
        assert of_torch.saved_tensor_hooks() is None  # as in torch 2.4, which does not say
        assert of_torch.saved_tensor_hooks(unknown=(pack, unpack)) == (pack, unpack)


def named(path):
    """Attributes, imported names, and strings that could be names of attributes, in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_nothing_else_names_them():
    private = {part for name in (*PARTS, *ATTRIBUTES) for part in name.split(".") if part.startswith("_")}
    private |= {
        "_C",
        "_top_saved_tensors_default_hooks",
        "flop_registry",
        "CheckpointFunction",
        "BackwardCFunction",
        "_scaled_dot_product_efficient_attention",
    }
    private |= {"_hf_hook", "_diffusers_hook", "_guidance_scale", "_pag_scale", "_forward_pre_hooks", "_commit_hash"}
    files = [path for path in SOURCE.rglob("*.py") if path.parent.name != "private"]
    assert [f"{path}: {name}" for path in files for name in sorted(private & set(named(path)))] == []
