// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::DeviceMesh: a mesh has between 1 and 8 dimensions}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>

namespace sm = shardmesh;

auto legal = sizeof(sm::DeviceMesh<8, sm::ThreadsCommunicator>);

#ifdef EXPECT_ERROR
auto illegal = sizeof(sm::DeviceMesh<9, sm::ThreadsCommunicator>);
#endif
