// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>

namespace test {

/// The message of the E that `f` throws; other exceptions pass.
template <class E, class F>
std::string error_of(F f) {
  try {
    f();
  } catch (E const& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace test
