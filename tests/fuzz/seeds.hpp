// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What targets begin with, beside the files of tests/data: the hostile set, small checkpoints and files of ours.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/checkpoint/detail/metric_note.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/core/complex.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "../support/hostile_inputs.hpp"
#include "file_targets.hpp"

namespace fuzz {

class Seeds {
 public:
  explicit Seeds(std::string folder) : folder_(std::move(folder)) {}

  void add(std::string const& target, std::string_view input) {
    std::filesystem::create_directories(folder_ + "/" + target);
    std::ofstream out(folder_ + "/" + target + "/made-" + std::to_string(count_++),
                      std::ios::binary);
    out.write(input.data(), static_cast<std::streamsize>(input.size()));
  }

 private:
  std::string folder_;
  int count_ = 0;
};

inline std::string little(std::uint64_t value, int bytes) {
  return test::hostile::bytes_of(value, bytes);
}

inline void add_hostile(Seeds& seeds) {
  using namespace test::hostile;
  for (Hostile const& one : all()) {
    std::string const& in = one.input;
    if (in.size() > 6000) {
      continue;
    }
    if (one.read == metadata_pickle || one.read == test::hostile::tensor_pickle) {
      seeds.add("pickle", (one.read == metadata_pickle ? std::string(1, '\0') : "\1") + in);
      seeds.add("names", in);
      seeds.add("dcp_metadata", in);
      seeds.add("tensor_pickle", "\x20" + in);
      seeds.add("plain_value", in);
    } else if (one.read == test::hostile::metadata) {
      seeds.add("dcp_metadata", in);
      seeds.add("stream", little(in.size(), 2) + little(0, 2) + in);
      seeds.add("directory", little(in.size(), 2) + little(0, 2) + in + std::string(16, 'x'));
    } else if (one.read == test::hostile::tensor || one.read == archive) {
      seeds.add("zip", in);
      seeds.add("tensor", in);
    } else if (one.read == header) {
      seeds.add("safetensors_header", in);
      seeds.add("safetensors_file", little(in.size(), 8) + in + std::string(16, 'x'));
    } else if (one.read == sharding) {
      seeds.add("notes", in);
    } else if (one.read == test::hostile::index) {
      seeds.add("hub_index", in);
    } else {
      seeds.add("manifest", in);
      seeds.add("lines", in);
    }
  }
}

template <class T>
sm::Tensor<T> counted(sm::Shape const& shape) {
  sm::Tensor<T> tensor(shape);
  for (std::size_t i = 0; i < tensor.span().size(); ++i) {
    tensor.span()[i] = static_cast<T>(static_cast<float>(i));
  }
  return tensor;
}

/// Of several types and values, so that all that is written is read.
inline sm::StateDict small_state(std::string const& name) {
  sm::StateDict dict;
  dict.insert(std::vector<sm::PathElement>{"model", "weight"}, counted<float>({2, 3}));
  dict.insert(std::vector<sm::PathElement>{"model", "half"}, counted<sm::BFloat16>({3}));
  dict.insert({"optim", sm::index_t{0}, "step"}, counted<std::int64_t>(sm::Shape{}));
  dict.insert(std::vector<sm::PathElement>{"empty"}, counted<double>({0, 2}));
  sm::Value::Dict inner;
  inner.emplace_back("a", sm::Value(0.5));
  inner.emplace_back("b", sm::Value(sm::Value::Tuple{{sm::Value(true), sm::Value()}}));
  dict.insert(std::vector<sm::PathElement>{"values"}, sm::Value(std::move(inner)));
  dict.insert(std::vector<sm::PathElement>{name}, sm::Value(std::int64_t{-3}));
  return dict;
}

/// A stream without its head: metadata and items.
inline std::pair<std::string, std::string> saved(sm::StateDict const& dict) {
  std::ostringstream out;
  sm::save_stream(out, dict);
  std::string const all = out.str();
  std::size_t const mark = sm::detail::stream_mark.size();
  auto const length =
      static_cast<std::size_t>(format::load_le<std::uint64_t>(format::as_bytes(all), mark));
  return {all.substr(mark + 12, length), all.substr(mark + 12 + length)};
}

inline void add_checkpoints(Seeds& seeds) {
  sm::StateDict few;
  few.insert(std::vector<sm::PathElement>{"w"}, counted<float>({4}));
  for (sm::StateDict const& dict : {few, small_state("name")}) {
    auto const [metadata, items] = saved(dict);
    std::string const input = little(metadata.size(), 2) + little(0, 2) + metadata + items;
    seeds.add("stream", input);
    seeds.add("directory", input);
    seeds.add("dcp_metadata", metadata);
  }
  // With a manifest, whose mark stands in the metadata: as the name of a value.
  std::string const items = saved(small_state(std::string(32, 'm'))).second;
  sm::FileDigest data{"stream", items.size(), format::crc32_of(format::as_bytes(items)), {}};
  std::string const mark = sm::manifest_mark({data});
  auto const [metadata, same] = saved(small_state(mark));
  require(same == items, "the items depend on names");
  sm::FileDigest const description{
      ".metadata", metadata.size(), format::crc32_of(format::as_bytes(metadata)), {}};
  std::string const manifest = sm::write_manifest({description, data});
  seeds.add("directory",
            little(metadata.size(), 2) + little(manifest.size(), 2) + metadata + manifest + items);
  seeds.add("manifest", manifest);
  data.items = {{1, 0}, {0xffffffffU, 5}};
  std::string const with_items = sm::write_manifest({data});
  seeds.add("manifest", with_items);
  seeds.add("lines", sm::detail::digest_lines(data));
  seeds.add("lines", sm::detail::write_metric(0.25));
  seeds.add("lines", sm::detail::write_metric(-1e300));
}

/// Checkpoints by hand: what our own writer does not make.
inline void add_strange_checkpoints(Seeds& seeds) {
  using namespace test::hostile;
  auto const add = [&seeds](std::string const& metadata, std::string const& items) {
    std::string const input = little(metadata.size(), 2) + little(0, 2) + metadata + items;
    seeds.add("stream", input);
    seeds.add("directory", input);
  };
  auto const stored = [](std::string const& key, std::size_t length) {
    return whole(text(key) + tensor_entry({6}, test::hostile::chunk({0}, {6})),
                 place(key, {0}) + info("stream", 0, static_cast<std::int64_t>(length)));
  };
  // A view that float32 has not, one that is none, and one out of order.
  std::string const six(24, 'd');
  for (std::string const& more :
       {dict({text("conj"), "\x88"}), std::string("}"), std::string("N")}) {
    std::string const item = test::hostile::tensor_of(rebuild(6, 0, {6}, {1}, more), six, "little");
    add(stored("w", item.size()), item);
    seeds.add("tensor", item);
    seeds.add("tensor_pickle", "\x18" + rebuild(6, 0, {6}, {1}, more));
  }
  // What went through a transform.
  std::string const squeezed =
      object("_StorageInfo",
             dict({text("relative_path"), text("stream"), text("offset"), number(0), text("length"),
                   number(24), text("transform_descriptors"), "](" + text("stream.zstd/1") + "e"}));
  add(whole(text("w") + tensor_entry({6}, test::hostile::chunk({0}, {6})),
            place("w", {0}) + squeezed),
      six);
  // Data files that are safetensors blobs, right and of another name, type, shape or place.
  for (std::string const key : {"w", "v"}) {
    for (
        char const* const fields :
        {R"({"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}})",
         R"({"w":{"dtype":"I32","shape":[6],"data_offsets":[0,24]}})",
         R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
         R"({"__metadata__":{"DCP_SHARDING_INFO":"{\"w\":{\"saved_offsets\":[6]}}"},"w":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}})"}) {
      std::string header(fields);
      header.resize((header.size() + 7) / 8 * 8, ' ');
      std::string const blob = little(header.size(), 8) + header + six;
      add(stored(key, 24), blob);
      seeds.add("safetensors_file", blob);
    }
  }
  // With a metric, whole and damaged.
  std::string const metadata = stored("w", 24);
  for (std::string const& metric : {sm::detail::write_metric(0.5), std::string("0.5 00000000\n")}) {
    seeds.add("directory", little(metadata.size(), 2) + little(metric.size() | metric_bit, 2) +
                               metadata + metric + six);
  }
  // Values of kinds that have no place where they stand.
  for (std::string const value : {"1", "\"x\"", "[]", "true", "null", "-1", "1.5", "{}"}) {
    for (char const* const around :
         {"", R"({"a":)", R"({"a":{"saved_offsets":)", R"({"a":[)", R"({"weight_map":)",
          R"({"weight_map":{"a":)", R"({"metadata":{"total_size":)", R"({"__metadata__":{"a":)"}) {
      std::string const open(around);
      std::string closed = open + value;
      for (auto at = open.rbegin(); at != open.rend(); ++at) {
        closed += *at == '{' ? "}" : *at == '[' ? "]" : "";
      }
      seeds.add("notes", closed);
      seeds.add("hub_index", closed);
      seeds.add("safetensors_header", closed);
    }
  }
  // A set, bytes, a large integer, a class, and such members of a list and a dict: none is a plain value.
  for (std::string const& value :
       {std::string("\x8f"),
        std::string("C\x02"
                    "ab"),
        "\x8a\x09" + std::string(9, '\x01'), global("collections", "OrderedDict")}) {
    seeds.add("plain_value", "\x80\x04" + value + ".");
    seeds.add("plain_value", "\x80\x04]" + value + "a.");
    seeds.add("plain_value", "\x80\x04}" + value + "Ns.");
  }
  seeds.add("notes", R"({"a\u0000b":[1]})");
  seeds.add("hub_index", R"({"weight_map":{"a\u0000b":"x.safetensors"}})");
}

inline void add_words(Seeds& seeds) {
  for (std::string_view const list :
       {"node[3-5,7],other", "a[01-02]b[3]", "host", "4(x2),3", "8", "1(x0)", "2(x3", "[,a"}) {
    seeds.add("launcher", list);
  }
}

/// Two frames and a byte changed on the way; offers of ranks of which each sends to the next, and of two that do not match.
inline void add_network(Seeds& seeds) {
  auto const two = [](std::size_t value) {
    return std::string{static_cast<char>(value / 256), static_cast<char>(value % 256)};
  };
  std::string const sent =
      two(2) + two(0) + two(3) + "abc" + two(1) + two(7) + two(1) + two(0) + two(5) + two(7);
  seeds.add("frames", sent + two(0));
  for (std::size_t edit = 0; edit < 4; ++edit) {
    seeds.add("frames", sent + two(1) + two(50) + two(48) + std::string(48, 'x') + two(edit));
  }
  for (std::size_t const other : {8U, 9U}) {
    std::string said;
    for (int rank = 0; rank < 4; ++rank) {
      std::vector<sm::Message> const sends{{(rank + 1) % 4, nullptr, 8}};
      std::vector<sm::Message> const receives{{(rank + 3) % 4, nullptr, rank == 3 ? other : 8}};
      auto offer = sm::detail::pack_offer(sends, receives);
      offer.resize(offer.size() + 8);
      said += two(offer.size()) +
              std::string(reinterpret_cast<char const*>(offer.data()), offer.size());
    }
    seeds.add("offers", said);
  }
}

inline void write_seeds(std::string const& folder) {
  Seeds seeds(folder);
  add_hostile(seeds);
  add_checkpoints(seeds);
  add_strange_checkpoints(seeds);
  add_words(seeds);
  add_network(seeds);
}

}  // namespace fuzz
