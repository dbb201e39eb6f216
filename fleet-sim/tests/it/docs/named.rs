//! What the pages name: links, commands and their options, routes, metrics, variables, codes and messages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use serde_json::Value;
use shared_model::ProblemCode;

use super::blocks::{Page, pages};
use super::run::TESTS;
use crate::deploy::repository;

/// Words behind an opening fence that say what the block is.
const LANGUAGES: [&str; 4] = ["sh", "yaml", "ini", "json"];

#[test]
fn every_block_is_run_or_marked_as_an_example() -> Result<()> {
    let mut used = BTreeSet::new();
    for page in pages()? {
        for block in &page.blocks {
            let place = format!("{}:{}", page.path, block.line);
            match block.test() {
                Some(test) => {
                    ensure!(TESTS.contains(&(&page.path, test)), "{place}: no test {test}");
                    used.insert((page.path.clone(), test.to_owned()));
                }
                None if block.info == "toml server" => {
                    let file = fleet_sim::child::Directory::create("docs-toml")?;
                    let path = file.path().join("server.toml");
                    fs::write(&path, &block.text)?;
                    collector_api::config::Config::load(Some(&path), std::iter::empty())
                        .with_context(|| place)?;
                }
                None if block.info == "toml agent" => {
                    agent::config::Config::parse(&block.text).with_context(|| place)?;
                }
                None => {
                    let language = block.info.strip_suffix(" example");
                    let good = block.info == "text"
                        || language.is_some_and(|language| LANGUAGES.contains(&language));
                    ensure!(good, "{place}: `{}` says neither test nor example", block.info);
                    if language == Some("yaml") {
                        yaml_serde::from_str::<yaml_serde::Value>(&block.text)
                            .with_context(|| place)?;
                    }
                }
            }
        }
    }
    for (page, test) in TESTS {
        ensure!(used.contains(&((*page).to_owned(), (*test).to_owned())), "{page} has no {test}");
    }
    Ok(())
}

/// As GitHub makes them of headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.prose.iter().filter_map(|(_, line)| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    for page in pages()? {
        let here = repository().join(&page.path);
        let base = here.parent().context("a directory")?;
        for (line, text) in &page.prose {
            for part in text.split("](").skip(1) {
                let target = part.split(')').next().unwrap_or_default();
                if target.contains("://") {
                    continue;
                }
                let place = format!("{}:{line}: {target}", page.path);
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path = if file.is_empty() { here.clone() } else { base.join(file) };
                ensure!(path.exists(), "{place} is not there");
                if !anchor.is_empty() {
                    let of = fs::canonicalize(&path)?;
                    let root = fs::canonicalize(repository())?;
                    let of = of.strip_prefix(root)?.to_str().context("UTF-8")?.to_owned();
                    ensure!(
                        anchors(&Page::read(&of)?).contains(anchor),
                        "{place}: no such heading"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Code in prose, and the lines of shell blocks without their comments; with its place.
fn code(page: &Page) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (line, text) in &page.prose {
        let place = format!("{}:{line}", page.path);
        for span in text.split('`').skip(1).step_by(2) {
            found.push((place.clone(), span.to_owned()));
        }
    }
    for block in page.blocks.iter().filter(|block| block.info.starts_with("sh ")) {
        let place = format!("{}:{}", page.path, block.line);
        let joined = block.text.replace("\\\n", " ");
        for line in joined.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            // What comes after is another command's.
            found.extend(
                line.split(['|', ';', '&', '>', '<']).map(|part| (place.clone(), part.to_owned())),
            );
        }
    }
    found
}

/// Follows the words of a command line through the program's commands.
fn check_words(program: &clap::Command, words: &[&str]) -> Result<()> {
    let mut command = program.clone();
    command.build();
    let mut depth = 0;
    let mut value_is_next = false;
    for word in words {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            if name.is_empty() || ["help", "version"].contains(&name) {
                continue;
            }
            let argument =
                command.get_arguments().find(|argument| argument.get_long() == Some(name));
            let argument =
                argument.with_context(|| format!("`{}` has no --{name}", command.get_name()))?;
            value_is_next = argument.get_action().takes_values() && !option.contains('=');
        } else if value_is_next {
            value_is_next = false;
        } else if command.has_subcommands() && depth < 3 {
            let next = command.find_subcommand(word).cloned();
            command =
                next.with_context(|| format!("`{}` has no command {word}", command.get_name()))?;
            depth += 1;
        }
    }
    Ok(())
}

#[test]
fn commands_and_options_are_those_of_the_programs() -> Result<()> {
    let programs = [
        ("procfleet-server", collector_api::cli::Cli::command()),
        ("procfleet-agent", agent::cli::Cli::command()),
    ];
    let mut seen = 0;
    for page in pages()? {
        for (place, code) in code(&page) {
            let words: Vec<&str> = code.split_whitespace().collect();
            for (name, program) in &programs {
                let at = words
                    .iter()
                    .rposition(|word| word == name || word.ends_with(&format!("/{name}")));
                let Some(at) = at else { continue };
                // As an argument of another command: what is copied, built, or asked for by name.
                let others = ["install", "cargo", "journalctl", "systemctl", "docker", "kubectl"];
                if words[..at].iter().any(|word| others.contains(word))
                    && !words.contains(&"--direct")
                {
                    continue;
                }
                let rest = words[at + 1..].iter().copied();
                let rest: Vec<&str> = rest
                    .filter(|word| !["…", "hosts|tokens|api-keys|profiles|audit"].contains(word))
                    .collect();
                if rest.first().is_some_and(|word| word.contains('|')) {
                    continue;
                }
                check_words(program, &rest).with_context(|| format!("{place}: {code}"))?;
                seen += 1;
            }
        }
    }
    ensure!(seen > 60, "{seen} commands found");
    Ok(())
}

fn openapi() -> Result<Value> {
    Ok(yaml_serde::from_str(&fs::read_to_string(repository().join("openapi.yaml"))?)?)
}

#[test]
fn routes_are_in_the_document() -> Result<()> {
    let document = openapi()?;
    let known: Vec<Vec<&str>> = document["paths"]
        .as_object()
        .context("paths")?
        .keys()
        .map(|path| path.split('/').collect())
        .collect();
    let fits = |path: &str| {
        let shown: Vec<&str> = path.split('/').collect();
        known.iter().any(|known| {
            known.len() == shown.len()
                && known.iter().zip(&shown).all(|(known, shown)| {
                    known == shown
                        || known.starts_with('{')
                            && (shown.starts_with(['{', '$']) || shown.starts_with("no-such"))
                })
        })
    };
    let mut seen = BTreeSet::new();
    for page in pages()? {
        let spans = code(&page).into_iter();
        let blocks = page
            .blocks
            .iter()
            .map(|block| (format!("{}:{}", page.path, block.line), block.text.clone()));
        for (place, text) in spans.chain(blocks) {
            let text = text.replace("$(hostname)", "{host}");
            for (at, _) in text.match_indices("/v1/") {
                let rest = &text[at..];
                let end = rest.find(|c: char| c.is_whitespace() || "?\"'`),;*".contains(c));
                let path = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':']);
                ensure!(fits(path), "{place}: no route {path}");
                seen.insert(path.to_owned());
            }
        }
    }
    ensure!(seen.len() > 25, "{seen:?}");
    Ok(())
}

/// Everything that the programs are made of.
fn sources() -> Result<String> {
    let mut text = String::new();
    let mut waiting: Vec<_> = [
        "agent/src",
        "collector-api/src",
        "shared-model/src",
        "migrations",
        "collector-api/server.toml",
        "agent/agent.toml",
    ]
    .iter()
    .map(|path| repository().join(path))
    .collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else if path.extension().is_some_and(|end| end == "rs" || end == "sql" || end == "toml") {
            text += &fs::read_to_string(&path)?;
        }
    }
    Ok(text)
}

/// The identifiers in a text that begin so.
fn words<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(prefix)
        .filter(|(at, _)| !text[..*at].ends_with(is_part))
        .map(|(at, _)| text[at..].split(|c: char| !is_part(c)).next().unwrap_or_default())
        .collect()
}

#[test]
fn names_are_those_of_the_programs() -> Result<()> {
    let sources = sources()?;
    let compose = fs::read_to_string(repository().join("docker-compose.yml"))?;
    let examples = fs::read_to_string(repository().join(".env.example"))?;
    let grafana =
        fs::read_to_string(repository().join("grafana/provisioning/datasources/procfleet.yaml"))?;
    // The test's own, and those of commands for developers.
    let known = ["procfleet_token", "procfleet_restored", "PROCFLEET_"];
    for page in pages()? {
        let text = fs::read_to_string(repository().join(&page.path))?;
        for name in words(&text, "procfleet_") {
            ensure!(known.contains(&name) || sources.contains(name), "{}: no {name}", page.path);
        }
        for name in words(&text, "PROCFLEET_") {
            let key = name.trim_start_matches("PROCFLEET_AGENT_").trim_start_matches("PROCFLEET_");
            let last = key.rsplit("__").next().unwrap_or_default().to_lowercase();
            let direct =
                [&sources, &compose, &examples, &grafana].iter().any(|text| text.contains(name));
            ensure!(
                known.contains(&name) || direct || sources.contains(&format!("{last} = ")),
                "{}: no {name}",
                page.path
            );
        }
    }
    Ok(())
}

#[test]
fn messages_and_codes_of_the_troubleshooting_exist() -> Result<()> {
    let sources = sources()?;
    let text = sources.replace("\\\n", " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let codes: BTreeSet<String> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    let page = Page::read("docs/troubleshooting.md")?;
    let mut header = String::new();
    let mut seen = 0;
    for (line, row) in &page.prose {
        if !row.starts_with('|') {
            header.clear();
            continue;
        }
        let first = row.split('|').nth(1).unwrap_or_default();
        if header.is_empty() {
            header = first.trim().to_owned();
            continue;
        }
        for span in first.split('`').skip(1).step_by(2) {
            let place = format!("{}:{line}: {span}", page.path);
            match header.as_str() {
                "code" => ensure!(codes.contains(span), "{place} is no code"),
                "it says" | "the agent says" => {
                    ensure!(codes.contains(span) || text.contains(span), "{place} is said nowhere");
                }
                _ => {}
            }
            seen += 1;
        }
    }
    ensure!(seen > 40, "{seen}");
    Ok(())
}

#[test]
fn figures_of_the_sizing_are_those_of_the_benchmarks() -> Result<()> {
    let benchmarks = fs::read_to_string(repository().join("docs/BENCHMARKS.md"))?;
    let page = Page::read("docs/sizing.md")?;
    let rows =
        page.prose.iter().filter(|(_, row)| row.starts_with("| ") && !row.starts_with("| what"));
    let mut seen = 0;
    for (line, row) in rows {
        let figures = row.split('|').nth(2).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_digit() || ".,".contains(c);
        for figure in
            figures.split(|c: char| !is_part(c)).map(|figure| figure.trim_matches(['.', ',']))
        {
            if figure.bytes().any(|byte| byte.is_ascii_digit()) {
                let at = benchmarks.match_indices(figure).any(|(at, _)| {
                    let after = &benchmarks[at + figure.len()..];
                    !benchmarks[..at].ends_with(|c: char| c.is_ascii_digit() || c == '.')
                        && !after.starts_with(|c: char| c.is_ascii_digit())
                });
                ensure!(at, "docs/sizing.md:{line}: {figure} is not in the benchmarks");
                seen += 1;
            }
        }
    }
    ensure!(seen > 15, "{seen}");
    ensure!(Path::new(&repository().join("docs")).is_dir());
    Ok(())
}
