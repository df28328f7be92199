// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the tool adds to CLI11: words that are nearly right are answered with the right ones.

#include <algorithm>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "notation.hpp"

namespace tool {

/// Exit codes of the tool.
enum Exit : int {
  exit_good = 0,
  exit_bad = 1,    ///< what was looked at differs or is damaged
  exit_usage = 2,  ///< the command line is wrong, or something cannot be read or written
};

/// One of some words; else the nearest of them, and all.
inline CLI::Validator one_of(std::vector<std::string> const& words) {
  std::string list;
  for (std::string const& word : words) {
    list += (list.empty() ? "" : ",") + word;
  }
  return {[words, list](std::string& value) {
            bool const known = std::find(words.begin(), words.end(), value) != words.end();
            return known ? std::string()
                         : sm::detail::concat('"', sm::escaped(value), "\" is none of ", list,
                                              did_you_mean(value, words));
          },
          "{" + list + "}"};
}

/// The long options of a command, as they are typed.
inline std::vector<std::string> options_of(CLI::App& command) {
  std::vector<std::string> names;
  for (CLI::Option const* const option : command.get_options()) {
    for (std::string const& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

/// What of a command line is the name of no command or option; empty if nothing is.
inline std::string typing_error(CLI::App& app, std::vector<std::string> const& words) {
  CLI::App* command = &app;
  std::string who = "shardmesh";
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string const& word = words[i];
    if (word.size() > 2 && word.substr(0, 2) == "--") {
      std::string const name = word.substr(0, word.find('='));
      std::vector<std::string> const known = options_of(*command);
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        return sm::detail::concat(who, " has no option ", sm::escaped(name),
                                  did_you_mean(name, known), " See ", who, " --help");
      }
    } else if (command == &app && !word.empty() && word[0] != '-') {
      std::vector<std::string> known;
      for (CLI::App* const one : app.get_subcommands([](CLI::App*) { return true; })) {
        known.push_back(one->get_name());
        command = one->get_name() == word ? one : command;
      }
      if (command == &app) {
        return sm::detail::concat("there is no command \"", sm::escaped(word), '"',
                                  did_you_mean(word, known), " See shardmesh --help");
      }
      who += " " + word;
    }
  }
  return {};
}

}  // namespace tool
