// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What a save replaces and what is somebody else's; where a save through a link goes.
#include <shardmesh/checkpoint/detail/owned_files.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/checkpoint_manager.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/storage/tree.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace owned_files_test {

namespace sm = shardmesh;
namespace fs = test::fs;

using sm::PosixStorage;
using sm::detail::OnConflict;

TEST_SUITE_BEGIN("checkpoint.owned_files");

namespace {

sm::StateDict state_of(int value) {
  sm::StateDict dict;
  sm::Tensor<int> tensor({50});
  std::fill(tensor.span().begin(), tensor.span().end(), value);
  dict.insert("w", tensor);
  dict.insert("step", sm::Value(value));
  return dict;
}

void save(std::string const& path, int value, int ranks = 2) {
  sm::launch(sm::threads{ranks}, [&](auto& world) { sm::save(world, path, state_of(value)); });
}

std::string refusal(std::string const& path) {
  std::string said;
  sm::launch(sm::threads{1}, [&](auto& world) {
    said = test::error_of<sm::Error>([&] { sm::save(world, path, state_of(9)); });
  });
  return said;
}

/// The value that a sound checkpoint holds.
int held(std::string const& path) {
  sm::with_catalog(path, [](auto& catalog) { CHECK(sm::verify(catalog).damage.empty()); });
  int value = -1;
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("w", sm::Tensor<int>::zeros({50}));
    sm::load_any(world, path, dict);
    value = dict.at("w").tensor().get<sm::Tensor<int>>()->span()[49];
  });
  return value;
}

/// Every name below a directory, with what it is: a file's inode, rights and content, a link's target, a
/// directory's rights.
std::map<std::string, std::string> tree(std::string const& path) {
  std::map<std::string, std::string> found;
  for (auto const& entry : fs::recursive_directory_iterator(path)) {
    std::string const name = fs::relative(entry.path(), path);
    struct stat status{};
    REQUIRE(::lstat(entry.path().c_str(), &status) == 0);
    std::string const what = std::to_string(status.st_ino) + " " + std::to_string(status.st_mode);
    found[name] = entry.is_symlink()     ? "link to " + fs::read_symlink(entry.path()).string()
                  : entry.is_directory() ? what
                                         : what + " " + test::slurp(entry.path());
  }
  return found;
}

/// What users put beside a checkpoint.
void put_foreign(std::string const& directory) {
  test::spit(directory + "/lr_scheduler.json", "{\"last_epoch\": 3}");
  fs::permissions(directory + "/lr_scheduler.json", fs::perms::owner_read);
  PosixStorage::make_directories(directory + "/hf_assets/deep/empty");
  test::spit(directory + "/hf_assets/tokenizer.json", std::string(5000, 't'));
  test::spit(directory + "/hf_assets/deep/.hidden", "");
  fs::permissions(directory + "/hf_assets/deep", fs::perms::owner_all);
  fs::create_symlink("lr_scheduler.json", directory + "/link");
  fs::create_symlink("/nowhere/at/all", directory + "/dangling");
  fs::create_directory_symlink("hf_assets", directory + "/hf_assets/deep/up");
  test::spit(directory + "/model.safetensors", "no part of a DCP checkpoint");
  test::spit(directory + "/__0_0.distcp.bak", "a copy");
  test::spit(directory + "/metadata", "without the dot");
}

/// `put_foreign`, elsewhere, as it will be there.
std::map<std::string, std::string> foreign_of(std::string const& directory) {
  std::map<std::string, std::string> all = tree(directory);
  for (auto one = all.begin(); one != all.end();) {
    bool const own = sm::detail::is_checkpoint_name(one->first);
    one = own ? all.erase(one) : std::next(one);
  }
  return all;
}

std::vector<std::string> sorted_names(std::string const& path) {
  std::vector<std::string> names = PosixStorage::list(path);
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("the names of a checkpoint's own files, and others that look like them") {
  for (char const* const own :
       {".metadata", ".metadata.tmp", ".shardmesh", ".metric", ".metric.tmp-123", "__0_0.distcp",
        "__127_14.distcp", "__3.metadata", "__3.metadata.tmp"}) {
    CHECK(sm::detail::is_checkpoint_name(own));
  }
  for (char const* const foreign :
       {"", "metadata", "_0_0.distcp", "__0_0.distcp.bak", "__a_0.distcp", "__0_.distcp",
        "__#_#.distcp", "__#.metadata", "x__0_0.distcp", "model.safetensors", "config.json",
        ".metric.tmp-", ".metadata.tmp1"}) {
    CHECK_FALSE(sm::detail::is_checkpoint_name(foreign));
  }
  for (char const* const own :
       {"model.safetensors", "model-00001-of-00007.safetensors", "model.safetensors.index.json",
        "shard-00001-model-00001-of-00002.safetensors"}) {
    CHECK(sm::detail::is_model_name(own));
  }
  CHECK_FALSE(sm::detail::is_model_name("model-1.safetensors"));
  CHECK_FALSE(sm::detail::is_model_name("config.json"));
}

TEST_CASE("what lies beside a checkpoint stays as it is, however the checkpoint is replaced") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1, 6);
  put_foreign(run);
  fs::permissions(run, fs::perms::owner_all | fs::perms::group_all | fs::perms::set_gid);
  auto const foreign = foreign_of(run);
  CHECK(foreign.size() == 11);
  struct stat before{};
  REQUIRE(::stat(run.c_str(), &before) == 0);
  for (char const* const stale : {"__7_3.distcp", "__0.metadata", ".metadata.tmp", ".metric"}) {
    test::spit(run + "/" + stale, "of an older save");
  }
  save(run, 2);
  CHECK(held(run) == 2);
  CHECK(foreign_of(run) == foreign);
  CHECK(tree(run).size() == foreign.size() + 3);  // .metadata, .shardmesh, a data file
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    saver.save(run + "/", state_of(3)).wait();
    saver.save(run, state_of(4)).wait();
  });
  CHECK(held(run) == 4);
  CHECK(foreign_of(run) == foreign);
  struct stat after{};
  REQUIRE(::stat(run.c_str(), &after) == 0);
  CHECK(after.st_mode == before.st_mode);
  CHECK(PosixStorage::list(scratch / "") == Names{"run"});
}

TEST_CASE("a save over what PyTorch wrote removes its data, whatever its name, and nothing else") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  fs::copy(test::fixture("torch_2_15_hsdp"), run, fs::copy_options::recursive);
  put_foreign(run);
  auto const foreign = foreign_of(run);
  save(run, 1, 1);
  CHECK(held(run) == 1);
  CHECK(foreign_of(run) == foreign);
  CHECK(sm::detail::sort_names(run).own == Names{"__0_0.distcp", ".shardmesh", ".metadata"});
  // Data under a name of its own belongs to the checkpoint because .metadata says so.
  sm::format::DcpMetadata metadata;
  metadata.entries.push_back({"v", {"v"}, sm::format::BytesMetadata{{"weights.bin", 0, 4, {}}}});
  auto const bytes = sm::format::write_dcp_metadata(metadata);
  test::spit(run + "/.metadata", std::string(sm::format::as_text(bytes)));
  test::spit(run + "/weights.bin", "data");
  save(run, 2, 1);
  CHECK_FALSE(PosixStorage::exists(run + "/weights.bin"));
  CHECK(foreign_of(run) == foreign);
  // Where .metadata cannot be read, it could be anybody's, and stays.
  test::spit(run + "/.metadata", "rubbish");
  test::spit(run + "/weights.bin", "data");
  save(run, 3, 1);
  CHECK(held(run) == 3);
  CHECK(test::slurp(run + "/weights.bin") == "data");
}

TEST_CASE("a save that fails leaves everything, and the names of directories are not given away") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1, 1);
  put_foreign(run);
  PosixStorage::make_directories(run + "/__1_0.distcp/mine");
  auto const before = tree(run);
  save(run, 2, 1);  // no rank 1
  CHECK(held(run) == 2);
  CHECK(PosixStorage::exists(run + "/__1_0.distcp/mine"));
  std::string said = "no error";
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict = state_of(3);
    dict.insert("rank" + std::to_string(world.rank()), sm::Value(1));
    std::string const mine = test::error_of<sm::Error>([&] { sm::save(world, run, dict); });
    if (world.rank() == 0) {
      said = mine;
    }
  });
  CHECK(said.find("cannot keep what else is in the directory that is saved to") !=
        std::string::npos);
  CHECK(said.find(run + "/__1_0.distcp") != std::string::npos);
  CHECK(held(run) == 2);
  CHECK(foreign_of(run) == [&] {
    auto foreign = before;
    for (auto one = foreign.begin(); one != foreign.end();) {
      bool const own = sm::detail::is_checkpoint_name(one->first) && one->first != "__1_0.distcp";
      one = own || one->first == "__1_0.distcp" ? foreign.erase(one) : std::next(one);
    }
    return foreign;
  }());
  CHECK(PosixStorage::list(scratch / "") == Names{"run"});
}

TEST_CASE("what is changed, added or replaced while a save goes on is not lost") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  save(run, 1);
  put_foreign(run);
  std::string const next = scratch / "run.tmp-1";
  save(next, 2);
  sm::detail::link_all(run, next, sm::detail::sort_names(run).foreign);
  std::ofstream(run + "/metadata", std::ios::app) << ", appended";
  test::spit(scratch / "new", "{\"last_epoch\": 4}");
  fs::last_write_time(scratch / "new", fs::file_time_type::clock::now() - std::chrono::hours(9));
  PosixStorage::rename(scratch / "new", run + "/lr_scheduler.json");  // as careful programs write
  test::spit(run + "/added.txt", "added");
  test::spit(run + "/hf_assets/deep/added.txt", "added");
  test::spit(scratch / "new", "new");
  PosixStorage::rename(scratch / "new", run + "/hf_assets/tokenizer.json");
  fs::remove(run + "/dangling");
  fs::create_symlink("elsewhere", run + "/dangling");
  auto const foreign = foreign_of(run);
  REQUIRE(sm::detail::give_name(next, run));
  sm::detail::dissolve(next, run, OnConflict::take);
  CHECK(held(run) == 2);
  CHECK(foreign_of(run) == foreign);
  CHECK(PosixStorage::list(scratch / "") == Names{"run"});
}

TEST_CASE("what an interrupted save holds of others comes back; of two versions none is lost") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  auto const leftover = [&](char const* name, char const* text, int hours) {
    PosixStorage::make_directories(scratch / "run.tmp-77/sub");
    test::spit(scratch / "run.tmp-77/" + name, text);
    fs::last_write_time(scratch / "run.tmp-77/" + name,
                        fs::file_time_type::clock::now() + std::chrono::hours(hours));
  };
  save(run, 1);
  test::spit(run + "/older.txt", "here");
  test::spit(run + "/newer.txt", "here");
  test::spit(run + "/linked.txt", "here");
  leftover("__0_0.distcp", "half", 0);
  leftover("only.txt", "came back", 0);
  leftover("sub/only.txt", "came back", 0);
  leftover("older.txt", "there", -1);
  leftover("newer.txt", "there", 1);
  leftover("sub", "", 0);
  fs::create_hard_link(run + "/linked.txt", scratch / "run.tmp-77/linked.txt");
  save(run, 2);
  CHECK(held(run) == 2);
  CHECK(test::slurp(run + "/only.txt") == "came back");
  CHECK(test::slurp(run + "/sub/only.txt") == "came back");
  CHECK(test::slurp(run + "/older.txt") == "here");
  CHECK(test::slurp(run + "/newer.txt") == "here");
  CHECK(test::slurp(run + "/newer.txt.kept-1") == "there");
  CHECK(fs::hard_link_count(run + "/linked.txt") == 1);
  CHECK(sorted_names(run) == Names{".metadata", ".shardmesh", "__0_0.distcp", "linked.txt",
                                   "newer.txt", "newer.txt.kept-1", "older.txt", "only.txt",
                                   "sub"});
  CHECK(PosixStorage::list(scratch / "") == Names{"run"});
  fs::remove_all(run);  // and nothing of theirs is in the way of a new checkpoint
  leftover("__0_0.distcp", "half", 0);
  leftover("only.txt", "not theirs", 0);
  save(run, 3);
  CHECK(sorted_names(scratch / "") == Names{"run", "run.kept-1"});
  CHECK(sorted_names(run).size() == 3);
  CHECK(sorted_names(scratch / "run.kept-1") == Names{"only.txt", "sub"});
}

TEST_CASE("retention removes the checkpoint, not what somebody has put into its directory") {
  test::Scratch const scratch;
  std::string const root = scratch / "run";
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const on_first = [&](auto part) {
      if (world.rank() == 0) {
        part();
      }
      world.barrier();
    };
    sm::CheckpointManager manager(world, root, {.last = 1, .best = 1});
    manager.save(1, state_of(1), 3.0);
    on_first([&] { put_foreign(root + "/step-1"); });
    manager.save(1, state_of(2), 4.0);  // replaced
    CHECK(manager.latest()->metric == 4.0);
    manager.save(2, state_of(2), 1.0);
    on_first([&] {
      CHECK(foreign_of(root + "/step-1").size() == 11);
      CHECK_FALSE(PosixStorage::exists(root + "/step-1/.metadata"));
      CHECK_FALSE(PosixStorage::exists(root + "/step-1/__0_0.distcp"));
      CHECK(sorted_names(root) == Names{"step-1", "step-2"});
    });
    CHECK(manager.list().size() == 1);
    manager.forget_after(0);  // back to before step 1, and save it again, in the background too
    manager.save(1, state_of(5));
    on_first([&] { CHECK(held(root + "/step-1") == 5); });
    manager.forget_after(0);
    CHECK(manager.list().empty());
    sm::AsyncSaver saver(world);
    saver.save(manager.path_of(1), state_of(6)).wait();
    on_first([&] {
      CHECK(held(root + "/step-1") == 6);
      CHECK(foreign_of(root + "/step-1").size() == 11);
    });
    sm::CheckpointManager whole(world, root, {.last = 1, .whole_directories = true});
    whole.save(2, state_of(7));
    CHECK(whole.list().size() == 1);
    on_first([&] { CHECK(sorted_names(root) == Names{"step-2"}); });
  });
}

TEST_CASE("a removal that was interrupted is finished; other names are left alone") {
  test::Scratch const scratch;
  std::string const root = scratch / "run";
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::CheckpointManager manager(world, root, {.last = 5});
    manager.save(3, state_of(3));
    manager.save(4, state_of(4));
    manager.save(5, state_of(5));
    test::spit(root + "/step-3/notes.txt", "3");
    PosixStorage::rename(root + "/step-3", root + "/.trash-3");
    test::spit(root + "/step-4/notes.txt", "4");
    test::spit(root + "/step-5/notes.txt", "5");
    PosixStorage::make_directory(root + "/.trash-4");
    test::spit(root + "/.trash-4/notes.txt", "older");
    fs::last_write_time(root + "/.trash-4/notes.txt",
                        fs::file_time_type::clock::now() - std::chrono::hours(1));
    test::spit(root + "/.trash-4/more.txt", "4");
    PosixStorage::rename(root + "/step-5", scratch / "moved");
    fs::create_directory_symlink(scratch / "moved", root + "/step-5");
    for (char const* const name : {".trash-bin", "step-4.tmp-notes", ".trash-07"}) {
      PosixStorage::make_directory(root + "/" + name);
      test::spit(root + "/" + name + "/mine", "");
    }
    sm::CheckpointManager again(world, root, {.last = 1});
    CHECK(sorted_names(root) ==
          Names{".trash-07", ".trash-bin", "step-3", "step-4", "step-4.tmp-notes", "step-5"});
    CHECK(sorted_names(root + "/step-3") == Names{".shardmesh", "notes.txt"});
    CHECK(test::slurp(root + "/step-4/notes.txt") == "4");
    CHECK(test::slurp(root + "/step-4/more.txt") == "4");
    CHECK(held(root + "/step-4") == 4);
    again.save(6, state_of(6));
    CHECK(sorted_names(root + "/step-4") == Names{".shardmesh", "more.txt", "notes.txt"});
    CHECK_FALSE(PosixStorage::exists(root + "/step-5"));  // the link alone
  });
  CHECK(held(scratch / "moved") == 5);
}

TEST_CASE("a save through links replaces what they lead to, or makes it, and leaves the links") {
  test::Scratch const scratch;
  PosixStorage::make_directories(scratch / "disk/steps");
  PosixStorage::make_directory(scratch / "links");
  save(scratch / "disk/steps/step-20", 1);
  test::spit(scratch / "disk/steps/step-20/notes.txt", "");
  fs::create_directory_symlink("../disk/steps/step-20", scratch / "links/latest");
  fs::create_directory_symlink(scratch / "links/latest", scratch / "links/chain");
  fs::create_directory_symlink("disk", scratch / "through");
  fs::create_directory_symlink("../disk/steps/step-30", scratch / "links/next");
  struct stat first{};
  REQUIRE(::stat((scratch / "disk/steps").c_str(), &first) == 0);
  int value = 2;
  for (char const* const path : {"links/latest", "links/chain", "links/latest/",
                                 "through/steps/step-20", "links/../links/chain//"}) {
    save(scratch / path, value);
    CHECK(held(scratch / "disk/steps/step-20") == value);
    CHECK(held(scratch / path) == value++);
    CHECK(fs::is_symlink(scratch / "links/latest"));
    CHECK(fs::is_symlink(scratch / "links/chain"));
  }
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::AsyncSaver saver(world);
    saver.save(scratch / "links/chain", state_of(77)).wait();
  });
  CHECK(held(scratch / "disk/steps/step-20") == 77);
  CHECK(PosixStorage::exists(scratch / "disk/steps/step-20/notes.txt"));
  save(scratch / "links/next", 30);  // a link to what is to be
  CHECK(held(scratch / "disk/steps/step-30") == 30);
  CHECK(fs::is_symlink(scratch / "links/next"));
  CHECK(sorted_names(scratch / "links") == Names{"chain", "latest", "next"});
  CHECK(sorted_names(scratch / "disk/steps") == Names{"step-20", "step-30"});
}

TEST_CASE(
    "links that lead nowhere, in a circle, to a file, and places without a name are refused") {
  test::Scratch const scratch;
  fs::create_directory_symlink("not mounted/run", scratch / "unmounted");
  fs::create_directory_symlink("b", scratch / "a");
  fs::create_directory_symlink("a", scratch / "b");
  test::spit(scratch / "thesis.txt", "work of years");
  fs::create_symlink("thesis.txt", scratch / "text");
  fs::create_directory_symlink(".", scratch / "self");
  auto const says = [&](char const* path, char const* what) {
    std::string const said = refusal(scratch / path);
    INFO(said);
    CHECK(said.find(what) != std::string::npos);
    CHECK(said.find(scratch / "") != std::string::npos);
  };
  says("unmounted", "and there is no ");
  says("unmounted", "make that directory (or mount it), or remove the link");
  says("a", "Too many levels of symbolic links");
  says("text", "Not a directory");
  says("self", "without a name of its own");
  says(".", "without a name of its own");
  says("new/..", "without a name of its own");
  CHECK(refusal("/").find("without a name of its own") != std::string::npos);
  CHECK(refusal("").find("without a name of its own") != std::string::npos);
  CHECK(test::slurp(scratch / "thesis.txt") == "work of years");
  CHECK(sorted_names(scratch / "") == Names{"a", "b", "self", "text", "thesis.txt", "unmounted"});
}

TEST_CASE("safetensors are written through links, whoever writes them") {
  test::Scratch const scratch;
  PosixStorage::make_directory(scratch / "blobs");
  test::spit(scratch / "blobs/old.safetensors", "old");
  fs::create_symlink("blobs/old.safetensors", scratch / "model.safetensors");
  fs::create_symlink("blobs/new.safetensors", scratch / "new.safetensors");
  fs::create_directory_symlink("blobs", scratch / "directory");
  fs::create_directory_symlink("blobs/hub", scratch / "hub");
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::save_safetensors(world, scratch / "model.safetensors", state_of(1));
    sm::save_safetensors(world, scratch / "new.safetensors", state_of(2));
    sm::save_safetensors_sharded(world, scratch / "hub", state_of(3), 1000);
    std::string const said = test::error_of<sm::Error>(
        [&] { sm::save_safetensors(world, scratch / "directory", state_of(4)); });
    CHECK(said.find("is a directory; give a file") != std::string::npos);
    for (char const* const there : {"hub", "directory"}) {
      std::string const refused = test::error_of<sm::Error>(
          [&] { sm::save_safetensors_by_rank(world, scratch / there, state_of(4)); });
      CHECK(refused.find("exists; give a new directory") != std::string::npos);
    }
  });
  CHECK(held(scratch / "blobs/old.safetensors") == 1);
  CHECK(held(scratch / "blobs/new.safetensors") == 2);
  CHECK(held(scratch / "blobs/hub") == 3);
  sm::save_safetensors(scratch / "model.safetensors", state_of(5));
  CHECK(held(scratch / "blobs/old.safetensors") == 5);
  for (char const* const link : {"model.safetensors", "new.safetensors", "hub"}) {
    CHECK(fs::is_symlink(scratch / link));
  }
  CHECK(sorted_names(scratch / "blobs") == Names{"hub", "new.safetensors", "old.safetensors"});
}

TEST_SUITE_END();

}  // namespace owned_files_test
