// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The one .cu file that a program needs: the kernels that reduce and train on a device.
#include <shardmesh/optim/kernels.cuh>
