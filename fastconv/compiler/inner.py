"""Compilation of functions that only compiled code calls.

Numba optimizes every compiled function twice, generates machine code for it, and does it all again
for its body inside each caller: 6 s for the engine's thirty small functions, nearly all of it in
LLVM. An inner function is only translated to LLVM IR, and is optimized where it is linked into an
entry: 2 s. Public hooks of Numba are used (``pipeline_class``, a pass), and a library that
postpones what Numba's own does.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import IRLegalization, NativeLowering
from numba.core.types.misc import unliteral

from fastconv.compiler.options import OPTIONS, require

__all__ = ["inner"]


# Numba's passes for what no loop here has - closures, exceptions, ``with``, expressions of arrays,
# functions to be inlined in Python - that are a tenth of the time it takes.
UNNEEDED = frozenset({
    "with_lifting", "inline_closure_likes", "Rewrite dynamic raises",
    "make_function_op_code_to_jit_function", "inline_inlinables", "find_literally",
    "literal_unroll", "LiteralPropagation", "inline_overloads", "nopython_rewrites",
    "nopython_supported_feature_validation", "dump_parfor_diagnostics",
})  # fmt: skip


class _LinkOnlyLibrary(JITCodeLibrary):
    """IR to link into other libraries, where it is optimized; it has no machine code."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=False, analysis_only=True)
class _LinkOnly(AnalysisPass):
    _name = "fastconv_link_only"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.library = _LinkOnlyLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        state.flags.no_cpython_wrapper = True
        state.flags.no_cfunc_wrapper = True
        return False


@register_pass(mutates_CFG=False, analysis_only=True)
class _NotCallable(AnalysisPass):
    _name = "fastconv_not_callable"

    def __init__(self) -> None:
        AnalysisPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        # A dispatcher knows its overloads by the builtin functions that call them. This stands in
        # for one: unique, and of no use.
        lowered = state["cr"]
        stand_in = [state.func_id.func_qualname].append
        state.targetctx.insert_user_function(stand_in, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=stand_in)
        return False


class _LinkOnlyCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state, "fastconv_inner")
        passes.add_pass_after(_LinkOnly, IRLegalization)
        passes.add_pass_after(_NotCallable, NativeLowering)
        passes.passes = [step for step in passes.passes if step[0]._name not in UNNEEDED]
        passes.finalize()
        return [passes]


def inner(function: Any) -> Any:
    """Compile `function` into the compiled functions that call it; nothing else can.

    A literal argument is a number like any other here: Numba would translate the function once more
    for each, which LLVM does without being asked where it inlines the call.
    """
    require()
    _say_what_it_is_made_of(function)
    dispatcher: Any = numba.njit(pipeline_class=_LinkOnlyCompiler, **OPTIONS)(function)
    compile_ = dispatcher.compile
    dispatcher.compile = lambda kinds: compile_(tuple(map(unliteral, kinds)))
    return dispatcher


def _say_what_it_is_made_of(function: Any) -> None:
    """Give functions that a decorator makes of others names that tell them apart.

    A symbol in machine code has a function's name and a number that counts functions in the process
    that compiled it. Where kernels of two processes are loaded, two loops of one name and number
    are one to the linker: the first is run in place of the second.
    """
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [getattr(getattr(c, "py_func", c), "__qualname__", None) or repr(c) for c in cells]
    if parts:
        function.__qualname__ += f"[{', '.join(parts)}]"
