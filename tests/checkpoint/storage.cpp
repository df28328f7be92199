// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Files and directories: complete reads and writes, steps that nobody sees half done, and errors
// that name the path and what the operating system said.
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/size_signal.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/descriptors.hpp"
#include "damage.hpp"

namespace storage_test {

namespace sm = shardmesh;

using sm::File;
using sm::PosixStorage;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.storage");

namespace {

/// Did it fail with IoError about `path`, saying what errno `code` means?
bool is_io_error(test::Failure const& failure, std::string const& path, int code) {
  return failure.kind == "IoError" && failure.path == path && failure.says(path) &&
         failure.says(std::strerror(code));
}

int code_of(std::string const& path) {
  try {
    static_cast<void>(File::open(path));
  } catch (sm::IoError const& error) {
    return error.code();
  }
  return 0;
}

std::vector<std::string> sorted_names(std::string const& path) {
  std::vector<std::string> names = PosixStorage::list(path);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("what is written at positions is read at positions") {
  test::Scratch const scratch;
  std::string const path = scratch / "data";
  File file = File::create(path);
  CHECK(file.path() == path);
  file.write_at(4, test::bytes_of("5678"));
  file.write_at(0, test::bytes_of("1234"));
  file.write_at(8, {});
  file.finish();
  CHECK(test::slurp(path) == "12345678");
  File const read = File::open(path);
  CHECK(read.size() == 8);
  CHECK(read.read(2, 4) == test::bytes_of("3456"));
  CHECK(read.read(8, 0).empty());
  std::vector<std::byte> target(3);
  read.read_at(5, target);
  CHECK(target == test::bytes_of("678"));
}

TEST_CASE("a file moves with its owner and closes once") {
  test::Scratch const scratch;
  test::spit(scratch / "a", "aa");
  test::spit(scratch / "b", "bbb");
  File a = File::open(scratch / "a");
  File b(std::move(a));
  CHECK(b.read(0, 2) == test::bytes_of("aa"));
  File c = File::open(scratch / "b");
  c = std::move(b);
  CHECK(c.path() == scratch / "a");
  CHECK(c.size() == 2);
  CHECK(c.read(0, 2) == test::bytes_of("aa"));
  File written = File::create(scratch / "c");
  written.finish();
  CHECK(is_io_error(failure_of([&] { written.finish(); }), scratch / "c", EBADF));
}

TEST_CASE("reading past the end of a file says how long it is") {
  test::Scratch const scratch;
  std::string const path = scratch / "data";
  test::spit(path, "12345678");
  File const file = File::open(path);
  auto const past = failure_of([&] { static_cast<void>(file.read(6, 3)); });
  CHECK(past.kind == "CorruptError");
  CHECK(past.path == path);
  CHECK(past.offset == 8);
  CHECK(past.says(path + ": the file has 8 bytes, bytes 6 to 9 are needed (truncated file?)"));
  constexpr std::uint64_t most = ~std::uint64_t{0};
  CHECK(failure_of([&] { static_cast<void>(file.read(most, 2)); }).kind == "CorruptError");
  CHECK(failure_of([&] { static_cast<void>(file.read(2, most)); }).kind == "CorruptError");
  test::fs::resize_file(path, 5);  // behind our back
  auto const cut = failure_of([&] { static_cast<void>(file.read(2, 6)); });
  CHECK(cut.kind == "CorruptError");
  CHECK(cut.offset == 5);
  CHECK(cut.says("the file ends at byte 5, 3 more bytes are needed (truncated file?)"));
}

TEST_CASE("only regular files are opened, and errors name path and cause") {
  test::Scratch const scratch;
  auto const open = [](std::string const& path) {
    return failure_of([&] { static_cast<void>(File::open(path)); });
  };
  CHECK(is_io_error(open(scratch / "none"), scratch / "none", ENOENT));
  CHECK(open(scratch / "none").says("shardmesh: cannot open "));
  CHECK(code_of(scratch / "none") == ENOENT);
  CHECK(is_io_error(open(scratch / ""), scratch / "", EINVAL));
  CHECK(open(scratch / "").says("it is no regular file"));
  test::spit(scratch / "file", "x");
  CHECK(is_io_error(open(scratch / "file/below"), scratch / "file/below", ENOTDIR));
  test::fs::create_symlink(scratch / "file", scratch / "link");
  CHECK(File::open(scratch / "link").read(0, 1) == test::bytes_of("x"));
  test::fs::create_symlink("gone", scratch / "dangling");
  CHECK(open(scratch / "dangling")
            .says((scratch / "dangling") + ": it is a symbolic link to gone: "));
  CHECK(code_of(scratch / "dangling") == ENOENT);
  test::fs::create_symlink("loop", scratch / "loop");
  CHECK(open(scratch / "loop").says("it is a symbolic link to loop: "));
  CHECK(code_of(scratch / "loop") == ELOOP);
  REQUIRE(::mkfifo((scratch / "pipe").c_str(), 0600) == 0);
  CHECK(open(scratch / "pipe").says("it is no regular file"));  // nor waits for a writer
  test::fs::create_symlink("pipe", scratch / "to_pipe");
  CHECK(open(scratch / "to_pipe").says("it is no regular file"));
  test::fs::create_symlink("/dev/null", scratch / "to_device");
  CHECK(open(scratch / "to_device").says("it is no regular file"));
}

TEST_CASE("a new file never replaces one that is there") {
  test::Scratch const scratch;
  test::spit(scratch / "file", "old");
  auto const create = [](std::string const& path) {
    return failure_of([&] { static_cast<void>(File::create(path)); });
  };
  CHECK(is_io_error(create(scratch / "file"), scratch / "file", EEXIST));
  test::fs::create_symlink(scratch / "elsewhere", scratch / "link");
  CHECK(is_io_error(create(scratch / "link"), scratch / "link", EEXIST));
  CHECK(is_io_error(create(scratch / "no/file"), scratch / "no/file", ENOENT));
  CHECK_FALSE(PosixStorage::exists(scratch / "elsewhere"));
  CHECK(test::slurp(scratch / "file") == "old");
  File const read_only = File::open(scratch / "file");
  CHECK(is_io_error(failure_of([&] { read_only.write_at(0, test::bytes_of("new")); }),
                    scratch / "file", EBADF));
  File const write_only = File::create(scratch / "new");
  std::vector<std::byte> byte(1);
  CHECK(is_io_error(failure_of([&] { write_only.read_at(0, byte); }), scratch / "new", EBADF));
}

TEST_CASE("directories are made with those above them; a file in the way is an error") {
  test::Scratch const scratch;
  PosixStorage::make_directories(scratch / "a/b/c");
  PosixStorage::make_directories(scratch / "a/b/c");
  PosixStorage::make_directories(scratch / "a/b/d/");
  CHECK(sorted_names(scratch / "a/b") == std::vector<std::string>{"c", "d"});
  PosixStorage::make_directory(scratch / "a");
  test::fs::create_directory_symlink(scratch / "a", scratch / "link");
  PosixStorage::make_directory(scratch / "link");
  test::spit(scratch / "file", "");
  auto const make = [&](char const* name) {
    return failure_of([&] { PosixStorage::make_directory(scratch / name); });
  };
  CHECK(is_io_error(make("file"), scratch / "file", EEXIST));
  CHECK(make("file").says("shardmesh: cannot make the directory "));
  CHECK(is_io_error(make("none/below"), scratch / "none/below", ENOENT));
  CHECK(is_io_error(make("file/below"), scratch / "file/below", ENOTDIR));
  auto const all = failure_of([&] { PosixStorage::make_directories(scratch / "file/x/y"); });
  CHECK(is_io_error(all, scratch / "file/x", ENOTDIR));
}

TEST_CASE("paths are taken apart and temporary names stand beside them") {
  CHECK(PosixStorage::parent("/a/b") == "/a");
  CHECK(PosixStorage::parent("a/b/c") == "a/b");
  CHECK(PosixStorage::parent("/a") == "/");
  CHECK(PosixStorage::parent("/") == "/");
  CHECK(PosixStorage::parent("a") == ".");
  std::string const name = PosixStorage::temporary_name("/runs/last");
  CHECK(name == "/runs/last.tmp-" + std::to_string(::getpid()));
  CHECK(PosixStorage::parent(name) == "/runs");
  CHECK(PosixStorage::temporary_name("/runs/other") != name);
}

TEST_CASE("a directory is listed without the two names of itself") {
  test::Scratch const scratch;
  CHECK(PosixStorage::list(scratch / "").empty());
  test::spit(scratch / ".metadata", "");
  test::spit(scratch / "__0_0.distcp", "");
  PosixStorage::make_directory(scratch / "sub");
  CHECK(sorted_names(scratch / "") == std::vector<std::string>{".metadata", "__0_0.distcp", "sub"});
  auto const list = [&](char const* name) {
    return failure_of([&] { static_cast<void>(PosixStorage::list(scratch / name)); });
  };
  CHECK(is_io_error(list("none"), scratch / "none", ENOENT));
  CHECK(is_io_error(list(".metadata"), scratch / ".metadata", ENOTDIR));
  CHECK(list("none").says("shardmesh: cannot list the directory "));
}

TEST_CASE("a rename replaces a file in one step, and fails with both paths") {
  test::Scratch const scratch;
  test::spit(scratch / "new", "new");
  test::spit(scratch / "old", "old");
  PosixStorage::rename(scratch / "new", scratch / "old");
  CHECK(test::slurp(scratch / "old") == "new");
  CHECK_FALSE(PosixStorage::exists(scratch / "new"));
  auto const failure =
      failure_of([&] { PosixStorage::rename(scratch / "none", scratch / "other"); });
  CHECK(is_io_error(failure, scratch / "none", ENOENT));
  CHECK(failure.says(scratch / "other"));
  PosixStorage::make_directories(scratch / "full/sub");
  PosixStorage::make_directory(scratch / "empty");
  CHECK(is_io_error(failure_of([&] { PosixStorage::rename(scratch / "empty", scratch / "full"); }),
                    scratch / "empty", ENOTEMPTY));
}

TEST_CASE("two directories are exchanged in one step") {
  test::Scratch const scratch;
  PosixStorage::make_directory(scratch / "a");
  PosixStorage::make_directory(scratch / "b");
  test::spit(scratch / "a/one", "1");
  test::spit(scratch / "b/two", "2");
  if (!PosixStorage::exchange(scratch / "a", scratch / "b")) {
    CHECK(test::slurp(scratch / "a/one") == "1");  // this file system cannot; nothing moved
    return;
  }
  CHECK(test::slurp(scratch / "b/one") == "1");
  CHECK(test::slurp(scratch / "a/two") == "2");
  auto const failure = failure_of(
      [&] { static_cast<void>(PosixStorage::exchange(scratch / "a", scratch / "none")); });
  CHECK(is_io_error(failure, scratch / "a", ENOENT));
  CHECK(failure.says("exchange with " + (scratch / "none")));
  CHECK(test::slurp(scratch / "a/two") == "2");
}

TEST_CASE("what cannot be looked at is an error, not absent") {
  test::Scratch const scratch;
  test::spit(scratch / "file", "");
  test::fs::create_symlink(scratch / "loop", scratch / "loop");
  CHECK(PosixStorage::exists(scratch / "loop"));
  CHECK_FALSE(PosixStorage::exists(scratch / "none"));
  CHECK_FALSE(PosixStorage::exists(scratch / "file/below"));
  std::string const in_loop = scratch / "loop/below";
  std::string const too_long = scratch / std::string(300, 'x');
  auto const look = [](std::string const& path) {
    return failure_of([&] { static_cast<void>(PosixStorage::exists(path)); });
  };
  CHECK(is_io_error(look(in_loop), in_loop, ELOOP));
  CHECK(look(in_loop).says("shardmesh: cannot look at "));
  CHECK(is_io_error(look(too_long), too_long, ENAMETOOLONG));
  CHECK(is_io_error(failure_of([&] { PosixStorage::remove_all(in_loop); }), in_loop, ELOOP));
}

TEST_CASE("of files that are read in turns four stay open, those that were used last") {
  test::Scratch const scratch;
  std::string const top = test::fs::canonical(scratch / "");
  for (char name = 'a'; name <= 'f'; ++name) {
    test::spit(scratch / std::string(1, name), std::string(3, name));
  }
  sm::OpenFiles files;
  sm::Directory const directory = sm::Directory::open(scratch / "");
  auto const read = [&](char name) {
    return files.open(directory, std::string(1, name))->read(0, 3) ==
           test::bytes_of(std::string(3, name));
  };
  for (char const name : std::string("abcdef")) {
    CHECK(read(name));
    CHECK(test::open_below(top) <= 5);  // and the directory
  }
  CHECK((read('c') && read('d')));
  CHECK(read('a'));  // in the place of e
  test::fs::remove(scratch / "c");
  test::fs::remove(scratch / "e");
  CHECK(read('c'));
  auto const gone = failure_of([&] { static_cast<void>(read('e')); });
  CHECK(is_io_error(gone, scratch / "e", ENOENT));
  CHECK(read('b'));
  CHECK(test::open_below(top) == 5);
  test::spit(scratch / "e", "another one");
  auto const other = failure_of([&] { static_cast<void>(read('e')); });
  CHECK(other.kind == "IoError");
  CHECK(other.says("was changed or replaced while it was read"));
  test::fs::create_symlink(scratch / "a", scratch / "link");
  CHECK(files.open(directory, "link")->read(0, 3) == test::bytes_of("aaa"));
}

TEST_CASE("removing takes everything inside, never what links point to") {
  test::Scratch const scratch;
  PosixStorage::make_directories(scratch / "tree/deep/er");
  PosixStorage::make_directory(scratch / "kept");
  test::spit(scratch / "kept/file", "kept");
  test::spit(scratch / "tree/deep/file", "x");
  test::fs::create_directory_symlink(scratch / "kept", scratch / "tree/deep/link");
  test::fs::create_symlink(scratch / "nowhere", scratch / "tree/dangling");
  CHECK(PosixStorage::exists(scratch / "tree/dangling"));
  PosixStorage::remove_all(scratch / "tree");
  CHECK(sorted_names(scratch / "") == std::vector<std::string>{"kept"});
  CHECK(test::slurp(scratch / "kept/file") == "kept");
  PosixStorage::remove_all(scratch / "tree");  // already gone
  PosixStorage::remove_all(scratch / "kept/file");
  CHECK(sorted_names(scratch / "kept").empty());
}

TEST_CASE("a directory is brought to the disk, or the error names it") {
  test::Scratch const scratch;
  PosixStorage::sync_directory(scratch / "");
  test::spit(scratch / "file", "");
  auto const sync = [&](char const* name) {
    return failure_of([&] { PosixStorage::sync_directory(scratch / name); });
  };
  CHECK(is_io_error(sync("none"), scratch / "none", ENOENT));
  CHECK(is_io_error(sync("file"), scratch / "file", ENOTDIR));
  CHECK(sync("none").says("shardmesh: cannot bring to the disk "));
}

TEST_CASE("a path with a NUL is refused before anything is looked at, made or removed") {
  test::Scratch const scratch;
  std::string const file = scratch / "keep";
  test::spit(file, "mine");
  std::string const path = file + std::string("\0more", 5);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::File::open(path)), doctest::Contains("holds a NUL"),
                       sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::File::create(scratch / "new" + std::string(1, '\0'))),
                  sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::File::open_to_write(path)), sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::PosixStorage::exists(path)), sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::PosixStorage::follow(path)), sm::InvalidArgument);
  CHECK_THROWS_AS(static_cast<void>(sm::PosixStorage::list(path)), sm::InvalidArgument);
  CHECK_THROWS_AS(sm::PosixStorage::remove_all(path), sm::InvalidArgument);
  CHECK_THROWS_AS(sm::PosixStorage::rename(path, file), sm::InvalidArgument);
  CHECK_THROWS_AS(sm::PosixStorage::rename(file, path), sm::InvalidArgument);
  CHECK_THROWS_AS(sm::PosixStorage::make_directories(scratch / "a" + std::string("\0/b", 3)),
                  sm::InvalidArgument);
  CHECK_THROWS_AS(sm::PosixStorage::make_directories(std::string("\0", 1)), sm::InvalidArgument);
  sm::StateDict dict;
  dict.insert("x", sm::Tensor<float>(sm::Shape{2}));
  sm::launch(sm::threads{2}, [&](auto& world) {
    CHECK_THROWS_AS(sm::save(world, path, dict), sm::Error);
    CHECK_THROWS_AS(sm::save(world, std::string("\0/x", 3), dict), sm::Error);
  });
  CHECK(sm::PosixStorage::list(scratch / ".") == std::vector<std::string>{"keep"});
  CHECK(test::slurp(file) == "mine");
}

TEST_CASE(
    "a limit of the size of files is an error of the save, which leaves nothing, not a signal") {
  test::Scratch const scratch;
  sm::StateDict dict;
  dict.insert("x", sm::Tensor<float>(sm::Shape{100'000}));
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // no check here: it reports by its exit status
    struct rlimit const limit{65'536, 65'536};
    std::signal(SIGXFSZ, SIG_DFL);
    int refused = 0;
    if (::setrlimit(RLIMIT_FSIZE, &limit) == 0) {
      for (auto const write : {+[](std::string const& path, sm::StateDict const& state) {
                                 sm::launch(sm::threads{1},
                                            [&](auto& world) { sm::save(world, path, state); });
                               },
                               +[](std::string const& path, sm::StateDict const& state) {
                                 sm::save_safetensors(path + ".safetensors", state);
                               }}) {
        try {
          write(scratch / "run", dict);
        } catch (sm::IoError const& error) {
          refused += error.code() == EFBIG ? 1 : 0;
        } catch (...) {
        }
      }
    }
    ::_exit(refused);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 2);
  CHECK(sm::PosixStorage::list(scratch / ".").empty());
}

TEST_SUITE_END();

}  // namespace storage_test
