// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What bench/files.cpp measures with: models whose elements are known, so that what was loaded can be checked, and rows that
// are timed on all ranks, checked, and printed.
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/shardmesh.hpp>

namespace bench {

namespace sm = shardmesh;
using Clock = std::chrono::steady_clock;

/// What is saved: names and shapes.
struct Model {
  std::string name;
  std::vector<std::pair<std::string, sm::Shape>> tensors;

  [[nodiscard]] double bytes() const {
    double sum = 0;
    for (auto const& [key, shape] : tensors) {
      sum += 4.0 * static_cast<double>(sm::volume(shape));
    }
    return sum;
  }
};

inline Model tiny_model(std::string name) {
  Model model{std::move(name), {}};
  for (int i = 0; i < 200; ++i) {
    model.tensors.emplace_back(sm::detail::concat("tiny.", std::to_string(i), ".weight"),
                               sm::Shape{64, 128});
    model.tensors.emplace_back(sm::detail::concat("tiny.", std::to_string(i), ".bias"),
                               sm::Shape{128, 2});
  }
  return model;
}

/// The tiny tensors, and 32 large ones.
inline Model large_model(sm::Shape const& shape) {
  Model model = tiny_model("large");
  for (int i = 0; i < 32; ++i) {
    model.tensors.emplace_back(sm::detail::concat("layer.", std::to_string(i), ".weight"), shape);
  }
  return model;
}

/// An element of a tensor of a model: from 0.5 to 1, so never what memory is cleared to.
inline float value_of(std::size_t tensor, sm::index_t element) {
  std::uint32_t bits = static_cast<std::uint32_t>(element) * 0x9e3779b1U +
                       static_cast<std::uint32_t>(tensor) * 0x85ebca6bU;
  bits ^= bits >> 15;
  bits *= 0x2c1b3c6dU;
  return std::bit_cast<float>((bits >> 9) | 0x3f000000U);
}

/// Calls `f(place in the local part, element of the tensor, how many)` for each row that this rank holds of a matrix.
template <class F>
void for_each_row(sm::AnyTensor const& tensor, F const& f) {
  for (sm::Piece const& piece : tensor.pieces()) {
    for (sm::index_t i = 0; i < piece.box.extent[0]; ++i) {
      f((piece.local[0] + i) * tensor.local_shape()[1] + piece.local[1],
        (piece.box.offset[0] + i) * tensor.shape()[1] + piece.box.offset[1], piece.box.extent[1]);
    }
  }
}

template <class Space>
struct HostSideOf {
  using type = sm::HostMemory;
};
template <class Space>
  requires requires { typename Space::HostSide; }
struct HostSideOf<Space> {
  using type = typename Space::HostSide;
};
/// Host memory that the space copies to at full speed.
template <class Space>
using HostSide = typename HostSideOf<Space>::type;

inline sm::StridedCopy all_bytes(void const* source, void* target, std::size_t bytes) {
  return {source,       target,       sm::Shape{static_cast<sm::index_t>(bytes)},
          sm::Shape{1}, sm::Shape{1}, 1};
}

/// A state dict of a model.
/// @param filled  with its elements, else with zeros.
template <class Space, class Mesh>
sm::StateDict state_of(Mesh const& mesh,
                       Model const& model,
                       sm::Placement const& placement,
                       bool filled) {
  using Dist = sm::DistTensor<float, Mesh, sm::PlacementList, Space>;
  sm::StateDict dict;
  sm::Buffer<HostSide<Space>> host;
  std::size_t number = 0;
  for (auto const& [key, shape] : model.tensors) {
    sm::Layout const layout(shape, mesh.shape(), {placement});
    auto const local = sm::Tensor<float, Space>::zeros(Dist::expected_local_shape(mesh, layout));
    sm::AnyTensor const tensor(Dist(mesh, layout, local));
    if (filled) {
      if (host.size() < local.bytes()) {
        host = sm::Buffer<HostSide<Space>>(local.bytes());
      }
      auto* const elements = static_cast<float*>(host.data());
      for_each_row(tensor, [&](sm::index_t place, sm::index_t element, sm::index_t count) {
        for (sm::index_t i = 0; i < count; ++i) {
          elements[place + i] = value_of(number, element + i);
        }
      });
      tensor.copy_box(all_bytes(elements, tensor.data(), tensor.bytes()));
    }
    dict.insert(key, tensor);
    ++number;
  }
  typename Space::Stream{}.synchronize();
  return dict;
}

/// So that a load that does nothing is found out.
template <class Space>
void clear(sm::StateDict const& dict) {
  for (sm::StateEntry const& entry : dict) {
    Space::fill_zero(entry.tensor().data(), entry.tensor().bytes());
  }
  typename Space::Stream{}.synchronize();
}

/// What is wrong with this rank's parts of a model, all of whose elements are compared; empty if nothing.
template <class Space>
std::string wrong(Model const& model, sm::StateDict const& dict) {
  sm::Buffer<HostSide<Space>> host;
  std::size_t number = 0;
  for (auto const& [key, shape] : model.tensors) {
    if (!dict.contains(key)) {
      return sm::detail::concat("wrong: \"", key, "\" is missing");
    }
    sm::AnyTensor const& tensor = dict.at(key).tensor();
    auto const* elements = static_cast<float const*>(tensor.data());
    if (tensor.memory() == sm::MemoryKind::cuda && tensor.bytes() > 0) {
      if (host.size() < tensor.bytes()) {
        host = sm::Buffer<HostSide<Space>>(tensor.bytes());
      }
      tensor.copy_box(all_bytes(tensor.data(), host.data(), tensor.bytes()));
      elements = static_cast<float const*>(host.data());
    }
    sm::index_t bad = 0;
    sm::index_t seen = 0;
    for_each_row(tensor, [&](sm::index_t place, sm::index_t element, sm::index_t count) {
      for (sm::index_t i = 0; i < count; ++i) {
        bad += elements[place + i] == value_of(number, element + i) ? 0 : 1;
      }
      seen += count;
    });
    if (bad > 0 || seen != sm::volume(tensor.local_shape()) || !(tensor.shape() == shape)) {
      return sm::detail::concat("wrong: ", std::to_string(bad), " of ", std::to_string(seen),
                                " elements of \"", key, "\"");
    }
    ++number;
  }
  return {};
}

struct Settings {
  std::string place;
  std::string device = "cpu";
  std::string engine = "threads";  ///< on GPUs: threads, nccl, processes
  int ranks = 2;
  int runs = 3;
  double budget = 1e9;  ///< seconds; a row that has taken more is not run again
  bool small = false;
  bool all = false;         ///< the rows that the GPU form has and the CPU form has not
  bool files_only = false;  ///< without those that do not depend on the place
};

/// Seconds of the slowest rank, and of processors of all ranks together, which a busy machine does not change.
struct Times {
  double seconds = 0;
  double cpu = 0;
};

/// What a row could at best take, where that is known.
struct Limit {
  double seconds = 0;
  char const* name = "";
};

/// Seconds of processors that this process has used.
inline double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  auto const seconds = [](timeval const& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// What `work` throws, in words; empty if nothing.
template <class Work>
std::string problem_of(Work const& work) {
  try {
    work();
  } catch (std::exception const& error) {
    return error.what();
  }
  return {};
}

/// Prints an error as a line of JSON.
inline void tell_error(std::string const& model,
                       std::string const& what,
                       std::string const& error) {
  nlohmann::json const line = {{"model", model}, {"case", what}, {"error", error}};
  std::printf("%s\n", line.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).c_str());
  std::fflush(stdout);
}

/// Rows of one model on the ranks of a communicator.
template <class Space, class Comm>
class Rows {
 public:
  Rows(Comm const& comm, Settings const& settings, std::string model)
      : comm_(comm), settings_(settings), model_(std::move(model)) {}

  /// The medians of some runs after a first one that is not counted, printed by rank 0 as a line of JSON if the check finds
  /// nothing wrong, else what is wrong. All are called on every rank.
  /// @param before  untimed, before each run.
  /// @param check   after the last run: says what is wrong with what it made.
  template <class Before, class Run, class Check>
  Times operator()(char const* what,
                   double bytes,
                   Limit const& limit,
                   Before const& before,
                   Run const& run,
                   Check const& check) {
    Times times;
    std::string problem = problem_of([&] {
      times = time(before, run);
      std::string found;
      std::string const thrown = problem_of([&] { found = check(); });
      meet(thrown.empty() ? found : thrown);
    });
    failed_ = failed_ || !problem.empty();
    if (comm_.rank() == 0) {
      tell(what, bytes, limit, times, problem);
    }
    return problem.empty() ? times : Times{};
  }

  /// Did a row fail on any rank?
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  /// Ranks wait for each other.
  /// @throws sm::Error on all of them if one has a problem.
  void meet(std::string const& problem) const {
    auto const all = sm::all_gather_text(comm_, problem, "bench");
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      if (!all[rank].empty()) {
        throw sm::Error(sm::detail::concat(all[rank], " [rank ", std::to_string(rank), "]"));
      }
    }
  }

  template <class Before, class Run>
  Times time(Before const& before, Run const& run) const {
    std::vector<double> times;
    std::vector<double> cpu;
    double spent = 0;
    for (int i = 0; i <= settings_.runs && (i < 2 || spent < settings_.budget); ++i) {
      auto const began = Clock::now();
      meet(problem_of(before));
      double const cpu_before = cpu_seconds();
      comm_.barrier("bench");
      auto const start = Clock::now();
      std::string const problem = problem_of([&] {
        run();
        typename Space::Stream{}.synchronize();
      });
      std::chrono::duration<double> const own = Clock::now() - start;
      meet(problem);
      struct Mine {
        double seconds, cpu, spent;
      };
      Mine const mine{own.count(), cpu_seconds() - cpu_before,
                      std::chrono::duration<double>(Clock::now() - began).count()};
      Mine most{};
      double processors = 0;
      for (Mine const& one : sm::all_gather_value(comm_, mine, "bench")) {
        most.seconds = std::max(most.seconds, one.seconds);
        most.cpu = std::max(most.cpu, one.cpu);
        most.spent = std::max(most.spent, one.spent);
        processors += one.cpu;
      }
      spent += most.spent;
      if (i > 0) {
        times.push_back(most.seconds);
        // Threads see what all of them have used.
        cpu.push_back(settings_.engine == "processes" ? processors : most.cpu);
      }
      comm_.barrier("bench");
    }
    std::sort(times.begin(), times.end());
    std::sort(cpu.begin(), cpu.end());
    return {times[times.size() / 2], cpu[cpu.size() / 2]};
  }

  void tell(char const* what,
            double bytes,
            Limit const& limit,
            Times const& times,
            std::string const& problem) const {
    if (!problem.empty()) {
      tell_error(model_, what, problem);
      return;
    }
    std::printf("{\"model\": \"%s\", \"case\": \"%s\", \"seconds\": %.6f, \"cpu_seconds\": %.4f, "
                "\"bytes\": %.0f",
                model_.c_str(), what, times.seconds, times.cpu, bytes);
    if (limit.seconds > 0) {
      std::printf(", \"limit_seconds\": %.6f, \"limit\": \"%s\"", limit.seconds, limit.name);
    }
    std::printf("}\n");
    std::fflush(stdout);
  }

  Comm const& comm_;
  Settings const& settings_;
  std::string model_;
  bool failed_ = false;
};

}  // namespace bench
