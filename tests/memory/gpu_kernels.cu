// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The kernels of the library, for the tests of device memory.
#include <shardmesh/memory/cuda/kernels.cuh>
