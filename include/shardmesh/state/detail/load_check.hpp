// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/memory/convert.hpp>
#include <shardmesh/state/detail/load_plain.hpp>
#include <shardmesh/state/detail/load_source.hpp>
#include <shardmesh/state/detail/tied_sources.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/model_value.hpp>
#include <shardmesh/state/number.hpp>
#include <shardmesh/state/options.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What a model adds to the state dict that is made of it.
struct LoadExtras {
  std::vector<std::string> ignored;  ///< keys that are neither loaded nor unexpected
  /// For each plain member, whether a value fits it.
  KeyMap<bool (*)(Value const&)> fits;
};

template <class Leaf>
void note_unfit(std::string const& key, Leaf const&, LoadExtras& extras) {
  if constexpr (!AnyTensorType<Leaf>) {
    extras.fits.add(key, [](Value const& value) { return model_value<Leaf>(value).has_value(); });
  }
}

/// How the part of a distributed tensor is found.
enum class LoadWay : std::uint8_t { cut, broadcast, copy, redistribute };

/// Compares what is to be loaded with what there is, then with the other ranks.
template <Communicator Comm>
class LoadCheck {
 public:
  LoadCheck(Comm const& comm,
            StateDict const& into,
            LoadSources const& sources,
            StateOptions const& options,
            LoadExtras const& extras)
      : comm_(comm), into_(into), sources_(sources), options_(options), plain_(sources) {
    for (StateEntry const& entry : into) {
      LoadSource const* const source = sources.by_key.find(entry.key);
      bool const from_tensor = source != nullptr && source->is_tensor;
      if (entry.is_live()) {
        continue;  // the optimizer looks for it
      }
      if (entry.is_tensor() && from_tensor) {
        check_tensor(entry.key, entry.tensor(), *source);
      } else if (source != nullptr && entry.is_tensor() && !may_be_number(entry)) {
        refuse(entry.key, "is a plain value, the member is a tensor");
      } else if (from_tensor && volume(source->shape) != 1) {
        refuse(entry.key, "is a tensor, the member is a plain value");
      } else if (entry.is_tensor() && !may_be_number(entry)) {
        missing_.push_back(entry.key);
      } else {
        guarded([&] { check_plain(entry, extras); });
      }
    }
    if (problem_.empty()) {
      problem_ = tied_problem(into, sources);
    }
    check_optimizers();
    find_unexpected(extras.ignored);
  }

  /// @throws KeyError, InvalidArgument, MismatchError on every rank if any has a problem.
  /// @collective over the communicator.
  [[nodiscard]] StateLoadReport agree() {
    throw_together<InvalidArgument>(comm_, problem_);
    StateAgreement agreed = agree_on_tensors(comm_, into_);
    order_ = std::move(agreed.order);
    WireWriter mine;
    mine.texts(missing_);
    mine.texts(unexpected_);
    mine.texts(cast_);
    mine.texts(plain_.left_out(into_));
    KeyList missing;
    KeyList unexpected;
    KeyList cast;
    KeyList left_out;
    std::string missing_at;
    std::string unexpected_at;
    std::vector<int> const world = comm_.world_ranks();
    agree_on_terms(world);
    auto const all = comm_.all_gather(mine.bytes());
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      WireReader reader(all[rank]);
      std::string const where = concat(" [rank ", std::to_string(world[rank]), ']');
      KeyList theirs;
      for (std::string const& key : reader.texts()) {
        theirs.add(key);
        skipped_.add(key);
      }
      for (std::string const& key : theirs.keys()) {
        if (!has_tied(key, theirs, agreed)) {
          missing.add(key);
          missing_at = missing_at.empty() ? where : missing_at;
        }
      }
      for (std::string const& key : reader.texts()) {
        unexpected.add(key);
        unexpected_at = unexpected_at.empty() ? where : unexpected_at;
      }
      for (std::string const& key : reader.texts()) {
        cast.add(key);
      }
      for (std::string const& key : reader.texts()) {
        left_out.add(key);
      }
    }
    StateLoadReport report{missing.keys(), unexpected.keys(), cast.keys(), {}};
    settle(options_.missing, "missing", "are in the state to load into, but not in the source",
           missing_at, comm_.rank() == 0, report.missing);
    settle(options_.unexpected, "unexpected",
           "are in the source, but not in the state to load into", unexpected_at, comm_.rank() == 0,
           report.unexpected);
    if (options_.unexpected == KeyPolicy::ignore && comm_.rank() == 0) {
      warn_of_left_out("shardmesh::load_state_dict", left_out.keys());
    }
    if (options_.dtype != DTypePolicy::warn) {
      report.cast.clear();
    }
    return report;
  }

  /// Keys of distributed tensors, in the order in which all ranks load them.
  [[nodiscard]] std::vector<std::string> const& order() const noexcept { return order_; }

  /// Is there something to load under this key, on every rank that has it?
  [[nodiscard]] bool loads(std::string const& key) const { return !skipped_.contains(key); }

  /// The one element of a 0-d tensor that was a number, or one of another type; else nullptr.
  [[nodiscard]] std::vector<std::byte> const* number(std::string const& key) const {
    return numbers_.find(key);
  }

  [[nodiscard]] LoadPlain<LoadSources>& plain() noexcept { return plain_; }

  /// @pre the tensor is distributed and `loads(key)`.
  [[nodiscard]] LoadWay way(std::string const& key) const { return ways_.at(key); }

 private:
  void refuse(std::string const& key, std::string const& what) {
    if (problem_.empty()) {
      problem_ = "shardmesh::load_state_dict: \"" + key + "\" " + what;
    }
  }

  /// Collectives must not be missed: what goes wrong is told by `agree`.
  template <class Part>
  void guarded(Part const& part) {
    try {
      part();
    } catch (Error const& error) {
      problem_ = problem_.empty() ? error.what() : problem_;
    }
  }

  [[nodiscard]] static bool may_be_number(StateEntry const& entry) {
    return entry.tensor().shape().empty() && !entry.tensor().is_distributed();
  }

  void check_plain(StateEntry const& entry, LoadExtras const& extras) {
    std::optional<Value> value = plain_.find(entry);
    auto const* const fits = extras.fits.find(entry.key);
    if (!value) {
      missing_.push_back(entry.key);
    } else if (entry.is_tensor()) {
      check_number(entry.key, *value, entry.tensor().dtype());
    } else if (fits != nullptr && !(*fits)(*value)) {
      LoadSource const* const source = sources_.by_key.find(entry.key);
      refuse(entry.key, source != nullptr && source->is_tensor
                            ? "is a tensor, the member is a plain value of another kind"
                            : "is " + to_string(*value) + ", which the member cannot hold");
    } else {
      plain_.put(entry.key, std::move(*value));
    }
  }

  void check_number(std::string const& key, Value const& value, DType dtype) {
    auto const element = element_of_number(value, dtype);
    if (!element) {
      refuse(key, "is " + to_string(value) + ", the tensor to load into holds " +
                      std::string(to_string(dtype)) + "; there is no conversion");
    } else if (!element->exact && options_.dtype == DTypePolicy::error) {
      refuse(key, "is " + to_string(value) + ", which the tensor to load into, of " +
                      std::string(to_string(dtype)) +
                      ", has only rounded; set options.dtype to warn or cast to round");
    } else {
      numbers_.add(key, element->bytes);
      if (!element->exact) {
        cast_.push_back(key);
      }
    }
  }

  void check_optimizers() {
    auto const loads = [this](std::string const& key) {
      LoadSource const* const source = sources_.by_key.find(key);
      return (source != nullptr && source->is_tensor) || numbers_.find(key) != nullptr;
    };
    for (LiveSection const& section : live_sections(into_)) {
      guarded([&] {
        for (LiveLoad::Missing& missing : plain_.prepare(section, loads)) {
          missing_.push_back(missing.key);
          if (!missing.why.empty()) {
            why_.add(missing.key, std::move(missing.why));
          }
        }
      });
    }
  }

  void check_tensor(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    if (!(source.shape == target.shape())) {
      return refuse(key, "has shape " + to_string(source.shape) + ", the tensor to load into " +
                             to_string(target.shape()) + "; make the model with the same shapes");
    }
    bool const is_scalar = target.shape().empty() && !target.is_distributed() &&
                           !source.is_distributed && has_numbers(target.dtype());
    if (source.dtype != target.dtype() && is_scalar) {
      if (auto const number = source.number()) {
        check_number(key, *number, target.dtype());
        bool const is_noted = !cast_.empty() && cast_.back() == key;
        if (numbers_.find(key) != nullptr && !is_noted) {
          cast_.push_back(key);
        }
        return;
      }
    }
    if (source.dtype != target.dtype()) {
      std::string const what = "holds " + std::string(to_string(source.dtype)) +
                               ", the tensor to load into " +
                               std::string(to_string(target.dtype()));
      if (!is_convertible(source.dtype, target.dtype())) {
        return refuse(key, what + "; there is no conversion");
      }
      if (options_.dtype == DTypePolicy::error) {
        return refuse(key, what + "; set options.dtype to warn or cast to convert");
      }
      cast_.push_back(key);
    }
    if (options_.broadcast_from_rank0 && source.tensor == nullptr && !source.is_distributed &&
        volume(source.shape) > 0 && target.is_distributed() != source.bytes.empty()) {
      return refuse(key, target.is_distributed()
                             ? "is distributed here and a plain tensor, or missing, on rank 0; "
                               "shard it on every rank"
                             : "is a plain tensor here and distributed on rank 0; shard it on "
                               "every rank");
    }
    if (!target.is_distributed()) {
      if (source.is_distributed) {
        refuse(key, "is distributed, the tensor to load into is not; take the full state first");
      }
    } else if (target.is_member()) {
      choose_way(key, target, source);
    }
  }

  void choose_way(std::string const& key, AnyTensor const& target, LoadSource const& source) {
    if (source.is_distributed) {
      choose_from_parts(key, target, source);
    } else if (!options_.full_state_dict) {
      refuse(key, "is a whole tensor, the tensor to load into is distributed; set full_state_dict");
    } else if (target.layout().has_partial()) {
      refuse(key, "cannot be cut into " + to_string(target.layout()) +
                      ": a partial tensor holds terms of a sum; make it Replicate or Shard");
    } else if (!options_.broadcast_from_rank0) {
      ways_.add(key, LoadWay::cut);
    } else if (TensorGroup const group = target.group();
               !group.first_replica || contains(group.ranks, sources_.root)) {
      ways_.add(key, LoadWay::broadcast);  // other replicas get it from the first
    } else {
      refuse(key, "has no part on rank 0, which therefore cannot send it; pass the full state on "
                  "every rank, without broadcast_from_rank0");
    }
  }

  void choose_from_parts(std::string const& key,
                         AnyTensor const& target,
                         LoadSource const& source) {
    if (source.tensor == nullptr || options_.broadcast_from_rank0) {
      return refuse(key, "is distributed, but broadcast_from_rank0 sends whole tensors; take the "
                         "full state first");
    }
    AnyTensor const& tensor = *source.tensor;
    bool const same_mesh = tensor.kind() == TensorKind::distributed &&
                           target.kind() == TensorKind::distributed &&
                           tensor.mesh() == target.mesh();
    bool const partial = tensor.layout().has_partial() || target.layout().has_partial();
    bool const same_parts =
        same_mesh ? tensor.layout() == target.layout()
                  : !partial && tensor.is_member() && tensor.pieces() == target.pieces();
    if (same_parts) {
      ways_.add(key, LoadWay::copy);
    } else if (!same_mesh) {
      refuse(key, "is " + to_string(tensor.layout()) +
                      ", the tensor to load into is on other ranks, as " +
                      to_string(target.layout()) +
                      "; take the full state, or go through a checkpoint");
    } else {
      try {
        static_cast<void>(make_plan(tensor.layout(), target.layout()));
        ways_.add(key, LoadWay::redistribute);
      } catch (InvalidArgument const& error) {
        refuse(key, std::string("cannot be redistributed: ") + error.what());
      }
    }
  }

  /// What ranks that hold parts of one tensor must agree on, as text.
  [[nodiscard]] std::string terms_of(std::string const& key) const {
    auto const text = [](AnyTensor const& tensor) {
      std::string result = std::string(to_string(tensor.dtype())) + to_string(tensor.layout());
      for (Cut const& cut : tensor.layout().order()) {
        result += concat(' ', std::to_string(cut.tensor_dim), ':', std::to_string(cut.mesh_dim));
      }
      return result;
    };
    LoadSource const& source = *sources_.by_key.find(key);
    return text(into_.at(key).tensor()) + " from " +
           (source.is_distributed ? text(*source.tensor) : std::string(to_string(source.dtype)));
  }

  [[nodiscard]] static std::string to_text(std::vector<int> const& ranks) {
    std::string text;
    for (int const rank : ranks) {
      text += concat(' ', std::to_string(rank));
    }
    return text;
  }

  /// @throws MismatchError on every rank if ranks of one group would load a tensor in different ways.
  void agree_on_terms(std::vector<int> const& world) const {
    WireWriter mine;
    mine.number(ways_.size());
    for (std::string const& key : order_) {
      if (ways_.find(key) != nullptr) {
        TensorGroup const group = into_.at(key).tensor().group();
        mine.text(key);
        mine.text(to_text(group.ranks));
        mine.text(terms_of(key));
      }
    }
    KeyMap<std::string> seen;
    auto const all = comm_.all_gather(mine.bytes());
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      WireReader reader(all[rank]);
      for (std::uint64_t left = reader.number(); left > 0; --left) {
        std::string const key = reader.text();
        std::string const group = reader.text();
        std::string const terms = reader.text();
        std::string const& earlier = seen.add(key + group, terms);
        if (earlier != terms) {
          throw MismatchError("shardmesh::load_state_dict: ranks disagree on \"" + key +
                              "\": rank " + std::to_string(world[rank]) + " would load " + terms +
                              ", a rank before it " + earlier +
                              "; all ranks must have the same layouts");
        }
      }
    }
  }

  void find_unexpected(std::vector<std::string> const& ignored) {
    KeyList known;
    for (std::string const& key : ignored) {
      known.add(key);
    }
    for (std::string const& key : sources_.by_key.keys()) {
      if (!into_.contains(key) && !known.contains(key) && !plain_.uses(key)) {
        unexpected_.push_back(key);
      }
    }
  }

  /// Does a rank that misses `key` have something that is tied to it?
  [[nodiscard]] static bool has_tied(std::string const& key,
                                     KeyList const& missing,
                                     StateAgreement const& agreed) {
    std::string const& first = agreed.first_name(key);
    bool found = first != key && !missing.contains(first);
    for (std::string const& name : agreed.tied.keys()) {
      found = found || (agreed.first_name(name) == first && name != key && !missing.contains(name));
    }
    return found;
  }

  void settle(KeyPolicy policy,
              std::string const& name,
              std::string const& meaning,
              std::string const& where,
              bool logs,
              std::vector<std::string>& keys) const {
    if (policy == KeyPolicy::error && !keys.empty()) {
      std::string text = "shardmesh::load_state_dict: " + std::to_string(keys.size()) + " " + name +
                         " keys, which " + meaning + ":";
      for (std::string const& key : keys) {
        text += concat(&key == &keys.front() ? " \"" : ", \"", escaped(key), '"');
        if (std::string const* const why = why_.find(key)) {
          text += concat(" (", *why, ')');
        }
      }
      throw KeyError(text + where + ". Set options." + name + " to go on without them");
    }
    for (std::size_t i = 0; policy == KeyPolicy::log && logs && i < keys.size(); ++i) {
      say(LogLevel::warning, [&] {
        return concat("shardmesh::load_state_dict: ", name, " key \"", escaped(keys[i]), '"');
      });
    }
    if (policy == KeyPolicy::ignore) {
      keys.clear();
    }
  }

  Comm const& comm_;
  StateDict const& into_;
  LoadSources const& sources_;
  StateOptions const& options_;
  LoadPlain<LoadSources> plain_;
  KeyMap<std::vector<std::byte>> numbers_;
  KeyMap<std::string> why_;
  std::string problem_;
  std::vector<std::string> missing_;
  std::vector<std::string> unexpected_;
  std::vector<std::string> cast_;
  std::vector<std::string> order_;
  KeyList skipped_;
  KeyMap<LoadWay> ways_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
