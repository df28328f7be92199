// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The power is cut while a checkpoint is written: whatever of it has reached the disk, the checkpoint that is there
// afterwards is the old or the new one, whole. Every operation that a save makes is recorded, and the disk rebuilt
// in the states that a file system may leave: SHARDMESH_POWER_STATES=1000000 for as many in each case.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/disk_model.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace sm = shardmesh;

using test::DiskOperation;
using test::DiskState;
using Kind = DiskOperation::Kind;

namespace {

/// Records what this program does below one directory, and keeps what the disk looks like after it.
class Recorder {
 public:
  void begin(std::string root) {
    std::lock_guard const lock(mutex_);
    root_ = std::move(root);
    state_ = {};
    operations_.clear();
    descriptors_.clear();
    next_ = 1;
    read_in(root_, 0);
    start_ = state_;
    active_ = true;
  }
  void end() {
    std::lock_guard const lock(mutex_);
    active_ = false;
  }

  [[nodiscard]] DiskState const& start() const { return start_; }
  [[nodiscard]] DiskState const& state() const { return state_; }
  [[nodiscard]] std::vector<DiskOperation> const& operations() const { return operations_; }

  /// @returns the number of what a path below the root leads to; -1 if nothing, or elsewhere.
  [[nodiscard]] int node_of(std::string const& path) const {
    auto const [directory, name] = place_of(path);
    if (directory < 0 || name.empty()) {
      return directory;
    }
    auto const& names = state_.nodes.at(directory).names;
    auto const found = names.find(name);
    return found == names.end() ? -1 : found->second;
  }

  /// The directory and the last name of a path; (-1, ...) outside the root.
  [[nodiscard]] std::pair<int, std::string> place_of(std::string const& path) const {
    if (!path.starts_with(root_)) {
      return {-1, {}};
    }
    int at = 0;
    std::string name;
    std::string rest = path.substr(root_.size()) + "/";
    std::size_t begin = 0;
    while (begin < rest.size()) {
      std::size_t const slash = rest.find('/', begin);
      std::string const part = rest.substr(begin, slash - begin);
      begin = slash + 1;
      if (part.empty() || part == ".") {
        continue;
      }
      if (!name.empty()) {
        auto const& names = state_.nodes.at(at).names;
        auto const found = names.find(name);
        if (found == names.end()) {
          return {-1, {}};
        }
        at = found->second;
      }
      name = part;
    }
    return {at, name};
  }

  template <class Do, class Note>
  auto call(Do system, Note note) {
    std::lock_guard const lock(mutex_);
    auto const result = system();
    if (active_ && result >= 0) {
      int const code = errno;
      note(static_cast<long>(result));
      errno = code;
    }
    return result;
  }

  void done(DiskOperation one) {
    state_.apply(one, false);
    operations_.push_back(std::move(one));
  }
  void opened(int descriptor, std::string const& path, bool created, bool emptied) {
    int node = node_of(path);
    if (node < 0 && created) {
      auto const [directory, name] = place_of(path);
      if (directory >= 0) {
        node = next_++;
        done({.kind = Kind::make, .node = node, .directory = directory, .name = name});
      }
    } else if (node >= 0 && emptied) {
      done({.kind = Kind::resize, .node = node});
    }
    descriptors_[descriptor] = node;
  }
  void made_directory(std::string const& path) {
    auto const [directory, name] = place_of(path);
    if (directory >= 0) {
      done({.kind = Kind::make,
            .node = next_++,
            .directory = directory,
            .name = name,
            .is_directory = true});
    }
  }
  [[nodiscard]] int node_at(int descriptor) const {
    auto const found = descriptors_.find(descriptor);
    return found == descriptors_.end() ? -1 : found->second;
  }
  void closed(int descriptor) { descriptors_.erase(descriptor); }
  void two_names(Kind kind, std::string const& from, std::string const& to) {
    auto const [directory, name] = place_of(from);
    auto const [other, new_name] = place_of(to);
    if (directory < 0 && other < 0) {
      return;
    }
    REQUIRE(directory >= 0);
    REQUIRE(other >= 0);
    if (kind == Kind::link) {
      done({.kind = kind, .node = node_of(from), .directory = other, .name = new_name});
    } else {
      done({.kind = kind, .directory = directory, .other = other, .name = name, .to = new_name});
    }
  }
  void removed(std::string const& path) {
    auto const [directory, name] = place_of(path);
    if (directory >= 0) {
      done({.kind = Kind::remove, .directory = directory, .name = name});
    }
  }

 private:
  void read_in(std::string const& path, int directory) {
    for (auto const& entry : test::fs::directory_iterator(path)) {
      int const node = next_++;
      bool const is_directory = entry.is_directory() && !entry.is_symlink();
      state_.nodes[node] = {is_directory, is_directory ? "" : test::slurp(entry.path()), {}};
      state_.nodes[directory].names[entry.path().filename()] = node;
      if (is_directory) {
        read_in(entry.path(), node);
      }
    }
  }

  std::recursive_mutex mutex_;
  bool active_ = false;
  std::string root_;
  DiskState start_;
  DiskState state_;
  std::vector<DiskOperation> operations_;
  std::map<int, int> descriptors_;  // to nodes
  int next_ = 1;
};

Recorder recorder;

/// A path that a call names by a directory that is open.
std::string path_at(int directory, char const* path) {
  if (directory == AT_FDCWD || *path == '/') {
    return path;
  }
  std::string target(4096, '\0');
  std::string const link = "/proc/self/fd/" + std::to_string(directory);
  ssize_t const size = ::readlink(link.c_str(), target.data(), target.size());
  target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return target + "/" + path;
}

int open_recorded(int directory, char const* path, int flags, mode_t mode) {
  return static_cast<int>(
      recorder.call([&] { return ::syscall(SYS_openat, directory, path, flags, mode); },
                    [&](long descriptor) {
                      recorder.opened(static_cast<int>(descriptor), path_at(directory, path),
                                      (flags & O_CREAT) != 0, (flags & O_TRUNC) != 0);
                    }));
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(arguments, unsigned)) : 0;
}

}  // namespace

// In the place of the C library's, for all that this program does.
extern "C" int open(char const* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t const mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_recorded(AT_FDCWD, path, flags, mode);
}
extern "C" int openat(int directory, char const* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t const mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_recorded(directory, path, flags, mode);
}
extern "C" int close(int descriptor) {
  return static_cast<int>(recorder.call([&] { return ::syscall(SYS_close, descriptor); },
                                        [&](long) { recorder.closed(descriptor); }));
}
extern "C" ssize_t pwrite(int descriptor, void const* data, std::size_t size, off_t at) {
  return recorder.call([&] { return ::syscall(SYS_pwrite64, descriptor, data, size, at); },
                       [&](long count) {
                         if (int const node = recorder.node_at(descriptor); node >= 0) {
                           recorder.done({.kind = Kind::write,
                                          .node = node,
                                          .at = static_cast<std::uint64_t>(at),
                                          .bytes = std::string(static_cast<char const*>(data),
                                                               static_cast<std::size_t>(count))});
                         }
                       });
}
extern "C" int ftruncate(int descriptor, off_t size) noexcept {
  return static_cast<int>(recorder.call(
      [&] { return ::syscall(SYS_ftruncate, descriptor, size); },
      [&](long) {
        if (int const node = recorder.node_at(descriptor); node >= 0) {
          recorder.done(
              {.kind = Kind::resize, .node = node, .at = static_cast<std::uint64_t>(size)});
        }
      }));
}
extern "C" int fsync(int descriptor) {
  return static_cast<int>(recorder.call([&] { return ::syscall(SYS_fsync, descriptor); },
                                        [&](long) {
                                          if (int const node = recorder.node_at(descriptor);
                                              node >= 0) {
                                            recorder.done({.kind = Kind::sync, .node = node});
                                          }
                                        }));
}
extern "C" int fdatasync(int descriptor) {
  return fsync(descriptor);
}
extern "C" int mkdirat(int directory, char const* path, mode_t mode) noexcept {
  return static_cast<int>(
      recorder.call([&] { return ::syscall(SYS_mkdirat, directory, path, mode); },
                    [&](long) { recorder.made_directory(path_at(directory, path)); }));
}
extern "C" int mkdir(char const* path, mode_t mode) noexcept {
  return mkdirat(AT_FDCWD, path, mode);
}
extern "C" int unlinkat(int directory, char const* path, int flags) noexcept {
  return static_cast<int>(
      recorder.call([&] { return ::syscall(SYS_unlinkat, directory, path, flags); },
                    [&](long) { recorder.removed(path_at(directory, path)); }));
}
extern "C" int unlink(char const* path) noexcept {
  return unlinkat(AT_FDCWD, path, 0);
}
extern "C" int rmdir(char const* path) noexcept {
  return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
extern "C" int renameat2(
    int from_at, char const* from, int to_at, char const* to, unsigned flags) noexcept {
  return static_cast<int>(recorder.call(
      [&] { return ::syscall(SYS_renameat2, from_at, from, to_at, to, flags); },
      [&](long) {
        recorder.two_names((flags & RENAME_EXCHANGE) != 0 ? Kind::exchange : Kind::move,
                           path_at(from_at, from), path_at(to_at, to));
      }));
}
extern "C" int renameat(int from_at, char const* from, int to_at, char const* to) noexcept {
  return renameat2(from_at, from, to_at, to, 0);
}
extern "C" int rename(char const* from, char const* to) noexcept {
  return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
extern "C" int linkat(
    int from_at, char const* from, int to_at, char const* to, int flags) noexcept {
  return static_cast<int>(recorder.call(
      [&] { return ::syscall(SYS_linkat, from_at, from, to_at, to, flags); },
      [&](long) { recorder.two_names(Kind::link, path_at(from_at, from), path_at(to_at, to)); }));
}
extern "C" int link(char const* from, char const* to) noexcept {
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

TEST_SUITE_BEGIN("checkpoint.power_loss");

namespace {

/// A place that is fast: what the disk does with it is modelled.
std::string memory() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : test::fs::temp_directory_path().string();
}

/// States to look at in each case.
long wanted_states() {
  char const* const asked = std::getenv("SHARDMESH_POWER_STATES");
  return asked != nullptr ? std::atol(asked) : test::sanitized ? 2000 : 20000;
}

sm::StateDict state_of(int value) {
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
int held(std::string const& path, std::string& why) {
  int found = -1;
  sm::launch(sm::threads{1}, [&](auto& world) {
    why = test::error_of<sm::Error>([&] {
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

void build(DiskState const& state, std::string const& root) {
  test::fs::create_directories(root);
  state.for_each([&](std::string const& path, DiskState::Node const& node) {
    if (node.is_directory) {
      test::fs::create_directory(root + "/" + path);
    } else {
      test::spit(root + "/" + path, node.bytes);
    }
  });
}

struct Found {
  long states = 0;
  long looked = 0;
  long saved_again = 0;
  std::set<int> values;
  std::string wrong;
};

/// What `name` holds after power cuts in one run of `body`.
/// @param samples  of a moment with many pending operations, and how many of the states are saved over again.
template <class Body, class Again>
void cut_power_once(std::string const& name,
                    std::string const& root,
                    std::string const& place,
                    Body body,
                    Again again,
                    long samples,
                    std::map<std::string, int>& known,
                    Found& found) {
  recorder.begin(root);
  body();
  recorder.end();
  // Whatever the program did by calls that are not recorded would show here.
  DiskState const recorded = recorder.state();
  Recorder after;
  after.begin(root);
  auto const everything = [](std::string const&) { return true; };
  REQUIRE(recorded.text(everything) == after.state().text(everything));
  after.end();

  auto const published = [&name](std::string const& path) {
    return path == name || path.starts_with(name + "/");
  };
  auto const look = [&](DiskState const& state, std::size_t moment) {
    std::string const text = state.text(published);
    auto const [at, is_new] = known.try_emplace(text, 0);
    bool const try_again = ++found.looked % 97 == 0;
    if (!is_new && !try_again) {
      return;
    }
    build(state, place);
    auto const wrong = [&](std::string const& what) {
      if (found.wrong.empty()) {
        found.wrong = "after " + std::to_string(moment) + " operations: " + what + "\n" +
                      state.text(everything);
      }
    };
    std::string why;
    if (is_new) {
      at->second = test::fs::exists(place + "/" + name) ? held(place + "/" + name, why) : 0;
      found.values.insert(at->second);
      if (at->second < 0) {
        wrong(why);
      }
    }
    if (try_again) {
      std::string const refused = test::error_of<sm::Error>([&] { again(place); });
      int const value = held(place + "/" + name, why);
      auto const names = sm::PosixStorage::list(place);
      if (value != 9 || names.size() != 1) {
        wrong("the next save: " + refused + ", " + why + ", " + std::to_string(names.size()) +
              " names");
      }
      ++found.saved_again;
    }
    test::fs::remove_all(place);
  };
  found.states += test::for_each_crash(recorder.start(), recorder.operations(), 6, samples,
                                       static_cast<std::uint32_t>(found.states), look);
}

/// The same of so many runs, on 1 to 4 ranks, that there are enough states.
/// @param start  what is there before, saved as 1.
/// @param save   (path, value, ranks)
/// @param again  a save of the value 9 on what is left, after which nothing else is there.
template <class Start, class Save, class Again>
Found cut_power(std::string const& name, Start start, Save save, Again again) {
  Found found;
  std::map<std::string, int> known;  // by what is published
  int runs = 0;
  for (; runs < 4 || found.states < wanted_states(); ++runs) {
    test::Scratch const scratch(memory());
    std::string const root = test::fs::canonical(scratch / "") / "disk";
    int const ranks = 1 + runs % 4;
    test::fs::create_directory(root);
    start(root + "/" + name, ranks);
    cut_power_once(
        name, root, scratch / "state", [&] { save(root + "/" + name, 2, ranks); },
        [&](std::string const& place) { again(place + "/" + name); }, 200, known, found);
  }
  MESSAGE(name << ": " << runs << " saves, " << found.states << " states, " << known.size()
               << " of what is published, " << found.saved_again << " saved over again");
  return found;
}

void save(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) { sm::save(world, path, state_of(value)); });
}
void save_behind(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    saver.save(path, state_of(value)).wait();
  });
}
void save_file(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks},
             [&](auto& world) { sm::save_safetensors(world, path, state_of(value)); });
}
void save_hub(std::string const& path, int value, int ranks) {
  sm::launch(sm::threads{ranks}, [&](auto& world) {
    sm::save_safetensors_sharded(world, path, state_of(value), 100, sm::Existing::replace);
  });
}

/// `save` of the value that is there first, or last.
template <class Save>
auto first(Save save) {
  return [save](std::string const& path, int ranks) { save(path, 1, ranks); };
}
template <class Save>
auto last(Save save) {
  return [save](std::string const& path) { save(path, 9, 2); };
}

std::set<int> const old_or_new{1, 2};

}  // namespace

TEST_CASE("power loss in a first save: nothing, or the checkpoint") {
  auto const found = cut_power("run", [](auto&&...) {}, save, last(save));
  CHECK(found.wrong == "");
  CHECK(found.values == std::set<int>{0, 2});
  CHECK(found.states >= wanted_states());
}

TEST_CASE("power loss in a save over a checkpoint: the old one or the new one") {
  auto const found = cut_power("run", first(save), save, last(save));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss in a save in the background: the old one or the new one") {
  auto const found = cut_power("run", first(save), save_behind, last(save_behind));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss in a save over a checkpoint with a file of the user's: it stays") {
  auto const found = cut_power(
      "run",
      [](std::string const& path, int ranks) {
        save(path, 1, ranks);
        test::spit(path + "/notes.txt", "mine");
      },
      save,
      [](std::string const& path) {
        save(path, 9, 2);
        if (test::slurp(path + "/notes.txt") != "mine") {
          throw sm::InvalidArgument("the user's file is lost");
        }
      });
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss while a safetensors file is replaced: the old one or the new one") {
  auto const found = cut_power("model.safetensors", first(save_file), save_file, last(save_file));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("power loss while a directory of safetensors is replaced: the old one or the new one") {
  auto const found = cut_power("model", first(save_hub), save_hub, last(save_hub));
  CHECK(found.wrong == "");
  CHECK(found.values == old_or_new);
}

TEST_CASE("the model of the disk finds saves that leave out a step") {
  enum class Forgotten { bytes, exchange, order };
  for (Forgotten const forgotten : {Forgotten::bytes, Forgotten::exchange, Forgotten::order}) {
    test::Scratch const scratch(memory());
    std::string const root = test::fs::canonical(scratch / "") / "disk";
    test::fs::create_directory(root);
    std::string const run = root + "/run";
    std::string const place = root + "/new";
    save(run, 1, 1);
    auto const body = [&] {
      save(place, 2, 1);
      if (forgotten == Forgotten::bytes) {  // a copy of the files that is not synced
        std::string const copy = root + "/copy";
        sm::PosixStorage::make_directory(copy);
        for (std::string const& name : sm::PosixStorage::list(place)) {
          auto const bytes = test::slurp(place + "/" + name);
          sm::File::create(copy + "/" + name).write_at(0, std::as_bytes(std::span(bytes)));
        }
        sm::PosixStorage::sync_directory(copy);
        CHECK(sm::PosixStorage::exchange(copy, run));
      } else if (forgotten ==
                 Forgotten::exchange) {  // the old one is removed before the names are synced
        CHECK(sm::PosixStorage::exchange(place, run));
        sm::PosixStorage::remove_all(place);
      } else {  // the old one is removed first
        sm::PosixStorage::remove_all(run);
        sm::PosixStorage::rename(place, run);
      }
    };
    Found found;
    std::map<std::string, int> known;
    cut_power_once("run", root, scratch / "state", body, [](auto&) {}, 200, known, found);
    INFO("forgotten: " << static_cast<int>(forgotten));
    CHECK(found.wrong != "");
    CHECK_FALSE(found.values == old_or_new);
  }
}

TEST_SUITE_END();
