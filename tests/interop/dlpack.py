#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""dlpack.py BRIDGE: tensors of PyTorch and arrays of NumPy go into shardmesh by DLPack and come out again, without a
copy and with their lifetimes right, in both forms. BRIDGE is the library of dlpack_bridge.cpp. Runs itself again under
the Python of $SHARDMESH_TORCH_PYTHON; exit 77 without PyTorch."""
import ctypes
import gc
import os
import sys
import weakref

python = os.environ.get("SHARDMESH_TORCH_PYTHON")
if python and "INTEROP_INNER" not in os.environ:
    os.execve(python, [python, *sys.argv], os.environ | {"INTEROP_INNER": "1"})
try:
    import numpy
    import torch
except ImportError as error:
    missing = os.environ.get("SHARDMESH_TORCH_MISSING")
    print(f"SKIP: {missing or error}; bash tests/interop/torch_env.sh installs PyTorch, SHARDMESH_TORCH_PYTHON names its Python")
    sys.exit(77)
try:
    torch.zeros(1).__dlpack__(max_version=(1, 1))
except TypeError:
    print(f"SKIP: PyTorch {torch.__version__} has no versioned DLPack")
    sys.exit(77)

bridge = ctypes.CDLL(sys.argv[1])
for name, result, *arguments in [("take", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
                                 ("take_unversioned", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
                                 ("address", ctypes.c_void_p, ctypes.c_int), ("drop", None, ctypes.c_int),
                                 ("describe", None, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t),
                                 ("give", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t),
                                 ("give_unversioned", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t),
                                 ("delete", None, ctypes.c_void_p)]:
    function = getattr(bridge, f"bridge_{name}")
    function.restype, function.argtypes = result, arguments
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype, capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
capsule_rename = ctypes.pythonapi.PyCapsule_SetName
capsule_rename.restype, capsule_rename.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype, capsule_new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
# A capsule keeps the address of its name.
NAMES = {True: (b"dltensor_versioned", b"used_dltensor_versioned"), False: (b"dltensor", b"used_dltensor")}


def take(source, versioned: bool = True) -> int:
    """A tensor into shardmesh, as a consumer has to: rename the capsule, then own what is in it."""
    capsule = source.__dlpack__(max_version=(1, 1)) if versioned else source.__dlpack__()
    pointer = capsule_pointer(capsule, NAMES[versioned][0])
    capsule_rename(capsule, NAMES[versioned][1])
    text = ctypes.create_string_buffer(600)
    number = (bridge.bridge_take if versioned else bridge.bridge_take_unversioned)(pointer, text, 600)
    if number == 0:
        raise ValueError(text.value.decode())
    return number


def give(number: int, versioned: bool = True):
    """A capsule of shardmesh's, which PyTorch renames and owns."""
    text = ctypes.create_string_buffer(600)
    pointer = (bridge.bridge_give if versioned else bridge.bridge_give_unversioned)(number, text, 600)
    if not pointer:
        raise ValueError(text.value.decode())
    return capsule_new(pointer, NAMES[versioned][0], None)


def described(number: int) -> list[str]:
    text = ctypes.create_string_buffer(200)
    bridge.bridge_describe(number, text, 200)
    return text.value.decode().split("|")


checks = 0


def check(right: bool, what: str) -> None:
    global checks
    checks += 1
    if not right:
        sys.exit(f"FAILED: {what}")


def refused(make, words: str) -> None:
    try:
        make()
    except ValueError as error:
        check(words in str(error), f"{words!r} in {error}")
    else:
        check(False, f"nothing was thrown, {words!r} was awaited")


DTYPES = [getattr(torch, name) for name in (
    "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool",
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "complex64", "complex128",
    "float4_e2m1fn_x2") if hasattr(torch, name)]


def as_bytes(tensor) -> list[int]:
    return tensor.view(torch.uint8).reshape(-1).tolist()


for versioned in (True, False):
    for dtype in DTYPES:
        where = f"{dtype}, {'versioned' if versioned else 'unversioned'}"
        size = torch.empty(0, dtype=torch.uint8 if dtype.itemsize == 1 else dtype).element_size()
        tensor = torch.arange(5 * 4 * size, dtype=torch.uint8).remainder(2).view(dtype).reshape(5, 4)
        try:
            number = take(tensor, versioned)
        except BufferError as error:  # PyTorch has not got it in DLPack
            print(f"left out: {where}: {error}")
            continue
        address, before = tensor.data_ptr(), as_bytes(tensor)
        check(bridge.bridge_address(number) == address, f"{where}: in without a copy")
        check(described(number) == [str(dtype).removeprefix("torch."), "(5, 4)", "rw"], f"{where}: {described(number)}")
        back = torch.utils.dlpack.from_dlpack(give(number, versioned))
        check(back.data_ptr() == address and back.dtype == dtype and back.shape == (5, 4), f"{where}: out without a copy")
        bridge.bridge_drop(number)
        del tensor
        gc.collect()
        check(as_bytes(back) == before, f"{where}: elements that are still held are still there")
        del back

# A part of a tensor: PyTorch gives its address or an offset.
whole = torch.arange(24.0).reshape(6, 4)
number = take(whole[2:4])
check(bridge.bridge_address(number) == whole.data_ptr() + 2 * 4 * 4, "the address of a slice")
bridge.bridge_drop(number)
# No dimension, no elements.
for empty in (torch.tensor(7.0), torch.empty(0, 3)):
    number = take(empty)
    check(described(number)[1] == str(tuple(empty.shape)).replace(",)", ")"), f"shape {tuple(empty.shape)}")
    again = torch.utils.dlpack.from_dlpack(give(number))
    check(again.shape == empty.shape, "the shape again")
    bridge.bridge_drop(number)

# Who frees what, and when: the memory of NumPy's array lives as long as anybody has the tensor.


class Array(numpy.ndarray):
    """An array that can be referred to weakly."""


for order in ("shardmesh last", "PyTorch last"):
    array = numpy.arange(6, dtype=numpy.float32).view(Array)
    alive = weakref.ref(array)
    number = take(array)
    del array
    gc.collect()
    check(alive() is not None, "shardmesh keeps the array")
    tensor = torch.utils.dlpack.from_dlpack(give(number))
    if order == "shardmesh last":
        del tensor
        gc.collect()
        check(alive() is not None, "shardmesh still has it")
        bridge.bridge_drop(number)
    else:
        bridge.bridge_drop(number)
        gc.collect()
        check(alive() is not None and tensor[5] == 5, "PyTorch still has it")
        del tensor
    gc.collect()
    check(alive() is None, f"nobody has it: {order}")

# Handed out and never used; refused when it came in.
array = numpy.arange(6, dtype=numpy.float32).view(Array)
alive = weakref.ref(array)
number = take(array)
pointer = capsule_pointer(give(number), NAMES[True][0])
bridge.bridge_drop(number)
del array
gc.collect()
check(alive() is not None, "what was handed out keeps the array")
bridge.bridge_delete(pointer)
gc.collect()
check(alive() is None, "what was given back unused keeps nothing")
array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3).T.view(Array)
alive = weakref.ref(array)
refused(lambda: take(array), "strides (1, 3) are not row-major")
del array
gc.collect()
check(alive() is None, "what was refused is given back")

# Read-only arrays say so, and cannot be handed on in the form that cannot.
array = numpy.arange(6, dtype=numpy.float32)
array.flags.writeable = False
number = take(array)
check(described(number)[2] == "ro", "read-only")
refused(lambda: give(number, versioned=False), "cannot say that elements are read-only")
bridge.bridge_drop(number)
print(f"PyTorch {torch.__version__}, NumPy {numpy.__version__}: {checks} checks, all ok")
