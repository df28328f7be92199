// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Small states that tell which of them a checkpoint holds, and the ways to save them.

#include <unistd.h>

#include <algorithm>
#include <string>

#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace test {

namespace sm = shardmesh;

/// A place that is fast: what the disk does with it is modelled.
inline std::string memory() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path().string();
}

inline sm::StateDict state_of(int value) {
  sm::StateDict dict;
  sm::Tensor<int> tensor({40});
  std::fill(tensor.span().begin(), tensor.span().end(), value);
  dict.insert("w", tensor);
  sm::Tensor<float> other({3, 5});
  std::fill(other.span().begin(), other.span().end(), static_cast<float>(value));
  dict.insert("v", other);
  return dict;
}

/// The value of the state that a path holds; -1 if it cannot be loaded, and why.
inline int held(std::string const& path, std::string& why) {
  int found = -1;
  sm::launch(sm::threads{1}, [&](auto& world) {
    why = error_of<sm::Error>([&] {
      sm::StateDict dict = state_of(0);
      sm::load_any(world, path, dict);
      int const value = dict.at("w").tensor().get<sm::Tensor<int>>()->span()[0];
      if (!sm::difference(dict, state_of(value)).empty()) {
        throw sm::MismatchError("a mixture: " + sm::difference(dict, state_of(value)));
      }
      found = value;
    });
  });
  return found;
}

inline void save(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) { sm::save(world, path, state_of(value)); });
}
inline void save_behind(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    saver.save(path, state_of(value)).wait();
  });
}
inline void save_file(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks},
             [&](auto& world) { sm::save_safetensors(world, path, state_of(value)); });
}
inline void save_hub(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) {
    sm::save_safetensors_sharded(world, path, state_of(value), 100, sm::Existing::replace);
  });
}

}  // namespace test
