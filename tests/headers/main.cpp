// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Every header in a translation unit of its own, all linked together: a missing include, a missing
// guard or a missing `inline` fails here.
int main() {}
