// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A disk that refuses what it is told to refuse: what is reported, and what is there afterwards.
#include <shardmesh/checkpoint/detail/commit.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace failing_disk_test {

namespace sm = shardmesh;

namespace {

/// What the system calls below refuse; changed while no rank runs.
struct Refusals {
  std::string sync = {};       ///< of paths that end so, with EIO
  std::string removal = {};    ///< of directories whose paths have this in them, with EBUSY
  int exchanges = INT_MAX;     ///< of names, after so many, with EIO
  bool second_names = false;   ///< links, as systems do for files of other users
  std::string slow_sync = {};  ///< not refused: paths that end so take `delay` to reach the disk
  std::chrono::milliseconds delay{0};
};

Refusals refusals;

/// How many more calls that make, change or remove a name this process makes before it is killed, as by
/// a power cut.
std::atomic<int> names_left = INT_MAX;

void name_changes() {
  if (names_left < INT_MAX && names_left-- <= 0) {
    ::kill(::getpid(), SIGKILL);
  }
}

/// The paths that were brought to the disk, while they are asked for.
struct Synced {
  std::mutex mutex;
  bool wanted = false;
  std::vector<std::string> paths;
};

Synced synced;

/// Refuses for as long as it is there.
class Refusing {
 public:
  explicit Refusing(Refusals what) { refusals = std::move(what); }
  Refusing(Refusing const&) = delete;
  Refusing& operator=(Refusing const&) = delete;
  ~Refusing() { refusals = {}; }
};

int refuse(int code) {
  errno = code;
  return -1;
}

}  // namespace

// In the place of the C library's, for all that this program does.
extern "C" int fsync(int descriptor) {
  if (!refusals.sync.empty() || !refusals.slow_sync.empty() || synced.wanted) {
    std::string const path = test::fs::read_symlink("/proc/self/fd/" + std::to_string(descriptor));
    if (!refusals.sync.empty() && path.ends_with(refusals.sync)) {
      return refuse(EIO);
    }
    if (!refusals.slow_sync.empty() && path.ends_with(refusals.slow_sync)) {
      std::this_thread::sleep_for(refusals.delay);
    }
    if (synced.wanted) {
      std::lock_guard const lock(synced.mutex);
      synced.paths.push_back(path);
    }
  }
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

extern "C" int rmdir(char const* path) noexcept {
  name_changes();
  if (!refusals.removal.empty() && std::string(path).find(refusals.removal) != std::string::npos) {
    return refuse(EBUSY);
  }
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
}

extern "C" int renameat2(
    int from_at, char const* from, int to_at, char const* to, unsigned flags) noexcept {
  name_changes();
  if (refusals.exchanges < INT_MAX && refusals.exchanges-- <= 0) {
    return refuse(EIO);
  }
  return static_cast<int>(::syscall(SYS_renameat2, from_at, from, to_at, to, flags));
}

extern "C" int rename(char const* from, char const* to) noexcept {
  name_changes();
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

extern "C" int linkat(
    int from_at, char const* from, int to_at, char const* to, int flags) noexcept {
  name_changes();
  return refusals.second_names
             ? refuse(EPERM)
             : static_cast<int>(::syscall(SYS_linkat, from_at, from, to_at, to, flags));
}

extern "C" int unlink(char const* path) noexcept {
  name_changes();
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

extern "C" int mkdir(char const* path, mode_t mode) noexcept {
  name_changes();
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

TEST_SUITE_BEGIN("checkpoint.failing_disk");

namespace {

sm::StateDict state_of(int value) {
  sm::StateDict dict;
  sm::Tensor<int> tensor({50});
  std::fill(tensor.span().begin(), tensor.span().end(), value);
  dict.insert("w", tensor);
  dict.insert("step", sm::Value(value));
  return dict;
}

/// Saves on two ranks; what rank 0 is told. Both must fail, or none.
std::string save(std::string const& directory, int value) {
  std::vector<std::string> said(2);
  sm::launch(sm::threads{2}, [&](auto& world) {
    said[static_cast<std::size_t>(world.rank())] =
        test::error_of<sm::Error>([&] { sm::save(world, directory, state_of(value)); });
  });
  CHECK((said[0] == "no error") == (said[1] == "no error"));
  return said[0];
}

bool holds(std::string const& directory, int value) {
  bool same = false;
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::StateDict dict = state_of(-1);
    sm::load(world, directory, dict);
    same = sm::difference(dict, state_of(value)).empty();
  });
  return same;
}

bool says(std::string const& what, std::initializer_list<char const*> parts) {
  INFO(what);
  bool const all = std::all_of(parts.begin(), parts.end(), [&](char const* part) {
    return what.find(part) != std::string::npos;
  });
  CHECK(all);
  return all;
}

}  // namespace

/// A catalog on a disk that takes its time for each tensor.
struct SlowCatalog : sm::DcpCatalog<sm::NoBlobs> {
  SlowCatalog(std::string const& directory, std::chrono::milliseconds time)
      : DcpCatalog(directory), delay(time) {}
  [[nodiscard]] sm::StoredBox read_box(std::string const& key, std::size_t box) {
    std::this_thread::sleep_for(delay);
    return DcpCatalog::read_box(key, box);
  }
  std::chrono::milliseconds delay;
};

TEST_CASE("a rank whose disk takes longer than the timeout fails no save and no load") {
  std::string error = "not tried";
  // On a busy machine others may be late as well: then a longer timeout is tried.
  for (int timeout = 400; !error.empty() && timeout < 60'000; timeout *= 5) {
    std::chrono::milliseconds const call(timeout);
    error.clear();
    for (std::string const slow : {"__1_0.distcp", "/.metadata"}) {
      test::Scratch const scratch;
      std::string const path = scratch / "c";
      Refusing const refusing({.slow_sync = slow, .delay = 3 * call});
      try {
        sm::launch(sm::threads{2, call}, [&](sm::ThreadsCommunicator& world) {
          sm::StateDict dict;
          sm::Tensor<int> mine({50});
          std::fill(mine.span().begin(), mine.span().end(), world.rank());
          dict.insert("w" + std::to_string(world.rank()), mine);
          sm::save(world, path, dict);
          std::fill(mine.span().begin(), mine.span().end(), -1);
          sm::load_from(world, [&] { return SlowCatalog(path, world.rank() * 3 * call); }, dict);
          CHECK(mine.span()[7] == world.rank());
        });
      } catch (sm::TimeoutError const& late) {
        error = late.what();
      }
    }
  }
  CHECK(error == "");
}

TEST_CASE("a name that cannot be brought to the disk is taken back: the old checkpoint stays") {
  test::Scratch const scratch;
  std::string const parent = test::fs::canonical(scratch / "");
  std::string const directory = parent + "/run";
  {
    Refusing const disk({.sync = parent});
    CHECK(says(save(directory, 1), {"cannot bring to the disk", parent.c_str()}));
    CHECK(sm::PosixStorage::list(parent).empty());
  }
  CHECK(save(directory, 1) == "no error");
  {
    Refusing const disk({.sync = parent});
    CHECK(says(save(directory, 2), {"cannot bring to the disk", parent.c_str()}));
  }
  CHECK(holds(directory, 1));
  CHECK(sm::PosixStorage::list(parent).size() == 1);
}

TEST_CASE("a name that cannot be taken back either: both checkpoints stay") {
  test::Scratch const scratch;
  std::string const parent = test::fs::canonical(scratch / "");
  CHECK(save(parent + "/run", 1) == "no error");
  {
    Refusing const disk({.sync = parent, .exchanges = 1});
    CHECK(says(save(parent + "/run", 2), {"cannot bring to the disk", parent.c_str()}));
  }
  CHECK(holds(parent + "/run", 2));
  CHECK(holds(sm::PosixStorage::temporary_name(parent + "/run"), 1));
  CHECK(save(parent + "/run", 3) == "no error");
  CHECK(sm::PosixStorage::list(parent).size() == 1);
}

TEST_CASE("what cannot be cleaned up does not hide why the save failed") {
  test::Scratch const scratch;
  std::string const directory = scratch / "run";
  CHECK(save(directory, 1) == "no error");
  {
    Refusing const disk({.sync = "__0_0.distcp", .removal = ".tmp-"});
    CHECK(says(save(directory, 2), {"cannot bring to the disk", "__0_0.distcp"}));
    CHECK(sm::PosixStorage::list(scratch / "").size() == 2);
    CHECK(says(save(directory, 2), {"cannot remove the directory", ".tmp-"}));
  }
  CHECK(holds(directory, 1));
  {
    Refusing const disk({.sync = ".safetensors", .removal = "model.tmp-"});
    sm::launch(sm::threads{1}, [&](auto& world) {
      std::string const what = test::error_of<sm::Error>(
          [&] { sm::save_safetensors_sharded(world, scratch / "model", state_of(2), 1000); });
      CHECK(says(what, {"cannot bring to the disk", "model.safetensors"}));
    });
  }
}

TEST_CASE("an old checkpoint that cannot be removed is left to the next save") {
  test::Scratch const scratch;
  std::string const directory = scratch / "run";
  CHECK(save(directory, 1) == "no error");
  {
    Refusing const disk({.removal = ".tmp-"});
    CHECK(save(directory, 2) == "no error");
  }
  CHECK(holds(directory, 2));
  CHECK(sm::PosixStorage::list(scratch / "").size() == 2);
  CHECK(save(directory, 3) == "no error");
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("a checkpoint whose metric cannot be written does not appear") {
  test::Scratch const scratch;
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 1, .best = 1});
    manager.save(1, state_of(1), 0.5);
    {
      Refusing const disk({.sync = sm::detail::metric_name.data()});
      CHECK_THROWS_WITH_AS(manager.save(2, state_of(2), 0.25), doctest::Contains("/.metric"),
                           sm::IoError);
    }
    CHECK(manager.latest()->step == 1);
    CHECK(manager.latest()->metric == 0.5);
    manager.save(2, state_of(2), 0.25);
    CHECK(manager.best()->step == 2);
  });
}

TEST_CASE("new directories are brought to the disk with those above them") {
  test::Scratch const scratch;
  std::string const top = test::fs::canonical(scratch / "");
  synced.wanted = true;
  sm::PosixStorage::make_directories(top + "/a/b/c/");
  CHECK(synced.paths == std::vector<std::string>{top, top + "/a", top + "/a/b"});
  synced.paths.clear();
  sm::PosixStorage::make_directories(top + "/a/b/c");
  CHECK(synced.paths.empty());
  synced.wanted = false;
  Refusing const disk({.sync = "/a/b"});
  CHECK_THROWS_WITH_AS(sm::PosixStorage::make_directories(top + "/a/b/d"),
                       doctest::Contains("cannot bring to the disk"), sm::IoError);
}

namespace {

/// What a user has put beside a checkpoint.
void put_foreign(std::string const& directory) {
  sm::PosixStorage::make_directories(directory + "/hf_assets/deep");
  test::spit(directory + "/lr_scheduler.json", "epoch 3");
  test::spit(directory + "/hf_assets/config.json", "config");
  test::spit(directory + "/hf_assets/deep/tokens", "tokens");
  test::fs::create_symlink("lr_scheduler.json", directory + "/link");
}

/// What is missing of it, or changed; empty if nothing.
std::string missing_in(std::string const& directory) {
  for (auto const& [name, text] : {std::pair{"lr_scheduler.json", "epoch 3"},
                                   {"link", "epoch 3"},
                                   {"hf_assets/config.json", "config"},
                                   {"hf_assets/deep/tokens", "tokens"}}) {
    if (test::slurp(directory + "/" + name) != text) {
      return name;
    }
  }
  return test::fs::is_symlink(directory + "/link") ? "" : "the link";
}

}  // namespace

TEST_CASE("files that allow no second name move when the new checkpoint stands there") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  CHECK(save(run, 1) == "no error");
  put_foreign(run);
  {
    Refusing const disk({.second_names = true});
    CHECK(save(run, 2) == "no error");
  }
  CHECK(missing_in(run) == "");
  CHECK(holds(run, 2));
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("a name that cannot be brought to the disk: what lies beside the checkpoint stays too") {
  test::Scratch const scratch;
  std::string const parent = test::fs::canonical(scratch / "");
  std::string const run = parent + "/run";
  CHECK(save(run, 1) == "no error");
  put_foreign(run);
  for (int const exchanges : {INT_MAX, 1}) {  // taken back, and not even that
    {
      Refusing const disk({.sync = parent, .exchanges = exchanges});
      CHECK(says(save(run, 2), {"cannot bring to the disk", parent.c_str()}));
    }
    CHECK(missing_in(run) == "");
    CHECK(holds(run, exchanges == 1 ? 2 : 1));
  }
  CHECK(save(run, 3) == "no error");
  CHECK(missing_in(run) == "");
  CHECK(sm::PosixStorage::list(parent).size() == 1);
}

#if SHARDMESH_TEST_MAY_FORK

namespace {

/// Runs `part` in a process that is killed before it changes a name for the (`calls` + 1)th time.
/// @returns whether it came to its end before that.
template <class Part>
bool ends_before(int calls, Part part) {
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    names_left = calls;
    part();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE((WIFEXITED(status) || WTERMSIG(status) == SIGKILL));
  return WIFEXITED(status);
}

}  // namespace

TEST_CASE("killed between any two changes of names: old or new, and nothing of others is missing") {
  for (bool const second_names : {true, false}) {
    bool ended = false;
    int calls = 0;
    for (; !ended; ++calls) {
      INFO(calls);
      test::Scratch const scratch;
      std::string const run = scratch / "run";
      CHECK(save(run, 1) == "no error");
      put_foreign(run);
      ended = ends_before(calls, [&] {
        refusals.second_names = !second_names;
        static_cast<void>(save(run, 2));
      });
      CHECK((holds(run, 1) || holds(run, 2)));
      CHECK((!ended || holds(run, 2)));
      if (second_names) {
        CHECK(missing_in(run) == "");  // at every moment
      }
      CHECK(save(run, 3) == "no error");
      CHECK(holds(run, 3));
      CHECK(missing_in(run) == "");
      CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
      CHECK(sm::PosixStorage::list(run).size() == 6);
    }
    CHECK(calls > 15);
  }
}

TEST_CASE("retention killed between any two changes of names loses nothing of others") {
  bool ended = false;
  int calls = 0;
  for (; !ended; ++calls) {
    INFO(calls);
    test::Scratch const scratch;
    std::string const root = scratch / "run";
    auto const save_step = [&](int step) {
      sm::launch(sm::threads{1}, [&](auto& world) {
        sm::CheckpointManager manager(world, root, {.last = 1});
        manager.save(step, state_of(step));
      });
    };
    save_step(1);
    put_foreign(root + "/step-1");
    ended = ends_before(calls, [&] { save_step(2); });
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::CheckpointManager manager(world, root, {.last = 1});
      CHECK(missing_in(root + "/step-1") == "");
      auto const newest = manager.latest();
      REQUIRE(newest.has_value());
      CHECK(holds(newest->path, static_cast<int>(newest->step)));
      CHECK((!ended || newest->step == 2));
      manager.save(3, state_of(3));
      CHECK(missing_in(root + "/step-1") == "");
      manager.forget_after(0);
      manager.save(1, state_of(4));
    });
    CHECK(holds(root + "/step-1", 4));
    CHECK(missing_in(root + "/step-1") == "");
    CHECK(sm::PosixStorage::list(root) == std::vector<std::string>{"step-1"});
  }
  CHECK(calls > 5);
}

#endif

TEST_SUITE_END();

}  // namespace failing_disk_test
