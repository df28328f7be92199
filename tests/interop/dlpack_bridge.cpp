// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A C interface for dlpack.py: takes tensors over from Python, keeps them, hands them out again.
#include <shardmesh/interop/dlpack.hpp>

#include <cstdio>
#include <exception>
#include <map>

namespace sm = shardmesh;

namespace {

std::map<int, sm::ForeignTensor<>>& kept() {
  static std::map<int, sm::ForeignTensor<>> tensors;
  return tensors;
}

/// Runs `f`; on an error puts its message into `text`.
template <class F>
auto guarded(char* text, std::size_t size, F f) -> decltype(f()) {
  try {
    std::snprintf(text, size, "%s", "");
    return f();
  } catch (std::exception const& error) {
    std::snprintf(text, size, "%s", error.what());
    return {};
  }
}

template <class M>
int take(M* managed, char* text, std::size_t size) {
  return guarded(text, size, [managed] {
    static int next = 0;
    kept().emplace(++next, sm::from_dlpack(managed));
    return next;
  });
}

}  // namespace

extern "C" {

/// @{ Takes a tensor over. @returns its number; 0 if it is refused, `text` says why.
int bridge_take(sm::dlpack::ManagedTensorVersioned* managed, char* text, std::size_t size) {
  return take(managed, text, size);
}
int bridge_take_unversioned(sm::dlpack::ManagedTensor* managed, char* text, std::size_t size) {
  return take(managed, text, size);
}
/// @}

void* bridge_address(int number) {
  return kept().at(number).data();
}
void bridge_drop(int number) {
  kept().erase(number);
}

/// "name of the element type|shape|ro or rw".
void bridge_describe(int number, char* text, std::size_t size) {
  auto const& tensor = kept().at(number);
  std::snprintf(text, size, "%s|%s|%s", std::string(sm::to_string(tensor.dtype())).c_str(),
                sm::to_string(tensor.shape()).c_str(), tensor.is_read_only() ? "ro" : "rw");
}

/// @{ Hands a tensor out; null if that is refused.
void* bridge_give(int number, char* text, std::size_t size) {
  return guarded(text, size,
                 [number]() -> void* { return sm::to_dlpack(kept().at(number)).release(); });
}
void* bridge_give_unversioned(int number, char* text, std::size_t size) {
  return guarded(text, size, [number]() -> void* {
    return sm::to_dlpack<sm::dlpack::ManagedTensor>(kept().at(number)).release();
  });
}
/// @}

/// Gives a tensor back unused.
void bridge_delete(sm::dlpack::ManagedTensorVersioned* managed) {
  managed->deleter(managed);
}
}
