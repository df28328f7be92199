// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/detail/arguments.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// What a save does that is asked for while another is being written.
enum class WhenBusy : std::uint8_t {
  wait,    ///< until the other has ended
  refuse,  ///< throws, on every rank
};

/// How an `AsyncSaver` saves. The same on all ranks.
struct AsyncOptions {
  WhenBusy when_busy = WhenBusy::wait;
  /// Where the state is copied to before the call returns. Device memory that has no room is copied
  /// to pinned host memory.
  SnapshotSpace snapshot = SnapshotSpace::same;
  /// Hears of each save that has failed, on every rank, from the thread that wrote: the directory, and what
  /// `Saving::wait` throws. Must not call the saver. Ranks may give different ones; a save that it has
  /// heard of is not told again by the next one.
  std::function<void(std::string const& directory, std::exception_ptr error)> on_failure = {};
  SaveOptions save = {};  ///< of each save
};

/// How far a save has come on one rank.
struct SaveProgress {
  std::uint64_t done = 0;   ///< bytes written
  std::uint64_t total = 0;  ///< bytes to write; 0 until the ranks have agreed on them
  bool finished = false;    ///< committed, or failed
};

namespace detail {

/// What a `Saving` and the thread that writes share.
struct SavingState {
  SaveCounters counters;
  std::mutex mutex;
  std::condition_variable changed;
  bool finished = false;
  std::exception_ptr error;
  bool heard = false;     ///< has anybody been told of the error?
  std::string directory;  ///< that is saved to
  std::optional<bool> goes_ahead;

  /// Tells the thread whether all ranks have one.
  void decide(bool value) {
    std::lock_guard const lock(mutex);
    goes_ahead = value;
    changed.notify_all();
  }
  /// Waits for `decide`.
  [[nodiscard]] bool may_write() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return goes_ahead.has_value(); });
    return *goes_ahead;
  }
  [[nodiscard]] bool is_unheard() {
    std::lock_guard const lock(mutex);
    return finished && error && !heard;
  }
  /// What has happened, in words.
  [[nodiscard]] std::string words() {
    std::lock_guard const lock(mutex);
    std::string const what = error ? FailureText::of(error).substr(1) : std::string();
    return concat("the save to ", directory, " in the background has failed: ", what);
  }
};

}  // namespace detail

/// A save that goes on in the background. Cheap to copy.
class Saving {
 public:
  explicit Saving(std::shared_ptr<detail::SavingState> state) : state_(std::move(state)) {}

  /// Returns when the checkpoint is complete and on the disk, on every rank.
  /// @throws what went wrong: on ranks that saw it what they saw, RankFailed on the others; none
  ///         returns if one throws.
  void wait() const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->finished; });
    if (state_->error) {
      state_->heard = true;
      std::rethrow_exception(state_->error);
    }
  }

  [[nodiscard]] SaveProgress progress() const {
    std::lock_guard const lock(state_->mutex);
    return {state_->counters.done, state_->counters.total, state_->finished};
  }

 private:
  std::shared_ptr<detail::SavingState> state_;
};

namespace detail {

/// A group for the background, so that its calls do not mix with the caller's. Files need no device.
template <Communicator Comm>
[[nodiscard]] auto background_group(Comm const& comm) {
  if constexpr (requires { comm.control().split(0, 0); }) {
    return comm.control().split(0, comm.rank());
  } else {
    return comm.split(0, comm.rank());
  }
}

}  // namespace detail

/// Saves in the background: `save` copies the state and returns; the caller may change every tensor
/// at once. One thread a rank writes and commits as `save` does, so that at every moment the old
/// checkpoint or the new one is there. The copies are kept and used again by the next save of a state
/// of the same shapes.
///
/// @code
///   sm::AsyncSaver saver(world);
///   sm::Saving const saving = saver.save("checkpoint", state);
///   train_one_step();
///   saving.wait();
/// @endcode
///
/// A save that has failed is not passed over in silence: if nobody has waited for it, and `on_failure` was not set, the
/// next `save` throws, and the destructor logs it on the first rank (`LogLevel::error`).
///
/// The destructor waits for a save that is being written.
template <Communicator Comm>
class AsyncSaver {
 public:
  /// Makes a group of the same ranks for the background.
  /// @throws MismatchError on every rank for options that differ.
  /// @collective over `comm`, with equal options.
  explicit AsyncSaver(Comm const& comm, AsyncOptions options = {})
      : comm_(comm), options_(std::move(options)) {
    detail::refuse_other_arguments(
        comm, "shardmesh::AsyncSaver",
        detail::Arguments()
            .add("when_busy", options_.when_busy == WhenBusy::wait ? "wait" : "refuse")
            .add("snapshot", options_.snapshot == SnapshotSpace::same ? "same" : "host")
            .add("containers", detail::name_of(options_.save.containers)));
    group_ = detail::background_group(comm);
  }

  AsyncSaver(AsyncSaver const&) = delete;
  AsyncSaver& operator=(AsyncSaver const&) = delete;
  ~AsyncSaver() {
    join();
    log_failure();
  }

  /// Copies a state and starts to save it. What goes wrong from then on is thrown by `wait`, on every
  /// rank, and leaves an older checkpoint untouched.
  /// @throws InvalidArgument on every rank, with WhenBusy::refuse, if any rank still writes; MismatchError
  ///         on every rank for directories that differ; Error on every rank, with the first error nested in it, if
  ///         the save before has failed and any rank has not been told: once, nothing is saved then; what the system says of
  ///         a rank that can start no thread, RankFailed then on the others.
  /// @collective over `comm`.
  [[nodiscard]] Saving save(std::string directory, StateDict const& dict) {
    detail::refuse_other_arguments(
        comm_, operation,
        detail::Arguments().path("directory", detail::without_trailing_slashes(directory)));
    if (options_.when_busy == WhenBusy::refuse) {
      refuse_if_busy(directory);
    }
    join();
    refuse_if_failed();
    std::shared_ptr<detail::SavingState> state;
    std::exception_ptr const error = detail::caught([&] { state = start(directory, dict); });
    try {  // a rank that cannot start must not leave the others waiting for its part
      detail::agree_on_failure(comm_, operation, error);
    } catch (...) {
      if (state != nullptr) {
        state->decide(false);
      }
      join();
      throw;
    }
    state_ = state;
    state->decide(true);
    return Saving(state);
  }

 private:
  static constexpr char operation[] = "shardmesh::AsyncSaver::save";

  /// Copies the state, and starts the thread that writes once it may.
  [[nodiscard]] std::shared_ptr<detail::SavingState> start(std::string const& directory,
                                                           StateDict const& dict) {
    auto state = std::make_shared<detail::SavingState>();
    state->directory = directory;
    std::vector<DeviceBinding> devices;
    std::exception_ptr const problem = detail::caught([&] { devices = take_snapshot(dict); });
    writer_ = std::thread([this, state, devices = std::move(devices), problem] {
      if (!state->may_write()) {
        return;
      }
      std::exception_ptr const error = detail::caught([&] {
        for (DeviceBinding const& device : devices) {
          device.bind();
        }
        detail::run_save(detail::AnyRanks(group_), state->directory, snapshot_, options_.save,
                         state->counters, problem);
      });
      bool const told = error && tell(state->directory, error);
      std::lock_guard const lock(state->mutex);
      state->heard = told;
      state->error = error;
      state->finished = true;
      state->changed.notify_all();
    });
    return state;
  }

  /// @returns whether anybody wants to hear of it.
  [[nodiscard]] bool tell(std::string const& directory,
                          std::exception_ptr const& error) const noexcept {
    if (!options_.on_failure) {
      return false;
    }
    try {
      options_.on_failure(directory, error);
      return true;
    } catch (...) {  // then the next save tells it
      return false;
    }
  }

  /// The save before has failed on all ranks, or on none; who has been told differs.
  void refuse_if_failed() const {
    int const unheard = state_ != nullptr && state_->is_unheard() ? 1 : 0;
    auto const all = all_gather_value(comm_, unheard, detail::call_of(operation));
    if (std::find(all.begin(), all.end(), 1) == all.end() || state_ == nullptr) {
      return;
    }
    std::string const words =
        detail::concat(operation, ": ", state_->words(),
                       "; nobody has waited for it. Nothing was saved now: call save again");
    try {
      Saving(state_).wait();
    } catch (...) {
      std::throw_with_nested(Error(words));
    }
  }

  void log_failure() const noexcept {
    if (state_ != nullptr && state_->is_unheard() && group_.rank() == 0) {
      detail::say(LogLevel::error, [this] {
        return detail::concat("shardmesh::AsyncSaver: ", state_->words(),
                              "; nobody has waited for it");
      });
    }
  }

  void refuse_if_busy(std::string const& directory) const {
    int const busy = state_ != nullptr && !Saving(state_).progress().finished ? 1 : 0;
    for (int const one : all_gather_value(comm_, busy, "AsyncSaver::save")) {
      if (one != 0) {
        throw InvalidArgument("shardmesh::AsyncSaver::save: the save before the one to " +
                              directory +
                              " is still being written; wait for it, or make the saver with "
                              "WhenBusy::wait");
      }
    }
  }

  /// @returns the devices that the writer is to bind.
  std::vector<DeviceBinding> take_snapshot(StateDict const& dict) {
    if (auto const current = detail::up_to_date(dict)) {
      return take_snapshot(*current);
    }
    std::vector<DeviceBinding> devices;
    StateDict taken;
    std::vector<AnyTensor const*> copied;  // one for each stream
    for (StateEntry const& entry : dict) {
      if (!entry.is_tensor()) {
        taken.insert(entry.path, entry.value.detached());
        continue;
      }
      bool const known = snapshot_.contains(entry.key) && snapshot_.at(entry.key).is_tensor();
      AnyTensor const& tensor = entry.tensor();
      AnyTensor const copy =
          tensor.snapshot(options_.snapshot, known ? &snapshot_.at(entry.key).tensor() : nullptr);
      taken.insert(entry.path, copy.ordered_on({}));  // the writer does not wait for the training
      if (DeviceBinding const device = tensor.device(); device.use != nullptr) {
        devices = {device};
      }
      if (copied.empty() || !(copied.back()->stream() == tensor.stream()) ||
          copied.back()->memory() != tensor.memory()) {
        copied.push_back(&tensor);
      }
    }
    for (AnyTensor const* const one : copied) {
      one->synchronize();
    }
    snapshot_ = std::move(taken);
    return devices;
  }

  void join() {
    if (writer_.joinable()) {
      writer_.join();
    }
  }

  using Group = decltype(detail::background_group(std::declval<Comm const&>()));

  Comm comm_;
  Group group_;
  AsyncOptions options_;
  StateDict snapshot_;  ///< of the writer while it runs
  std::shared_ptr<detail::SavingState> state_;
  std::thread writer_;
};

}  // namespace v0
}  // namespace shardmesh
