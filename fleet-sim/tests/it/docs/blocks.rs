//! Pages and their blocks.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::deploy::repository;

/// A fenced block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// What stands behind the fence.
    pub(super) info: String,
    pub(super) text: String,
    /// Of the fence, from 1.
    pub(super) line: usize,
    indent: usize,
}

impl Block {
    /// The test that runs it.
    pub(super) fn test(&self) -> Option<&str> {
        self.info.strip_prefix("sh test=")
    }
}

/// A page of Markdown.
#[derive(Debug)]
pub(super) struct Page {
    /// From the repository's root.
    pub(super) path: String,
    pub(super) blocks: Vec<Block>,
    /// What is no block, line by line.
    pub(super) prose: Vec<(usize, String)>,
}

impl Page {
    pub(super) fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())?;
        let mut page = Self { path: path.into(), blocks: Vec::new(), prose: Vec::new() };
        let mut open: Option<Block> = None;
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            match (&mut open, trimmed.strip_prefix("```")) {
                (None, Some(info)) => {
                    let indent = line.len() - trimmed.len();
                    open = Some(Block {
                        info: info.into(),
                        text: String::new(),
                        line: at + 1,
                        indent,
                    });
                }
                (None, None) => page.prose.push((at + 1, line.to_owned())),
                (Some(_), Some("")) => page.blocks.extend(open.take()),
                (Some(block), _) => {
                    // Blocks of a list are indented.
                    block.text += line.get(block.indent..).unwrap_or_default();
                    block.text.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{path}: a block does not end");
        Ok(page)
    }

    /// All blocks of a test, in order.
    pub(super) fn script(&self, test: &str) -> String {
        let blocks = self.blocks.iter().filter(|block| block.test() == Some(test));
        let script: String = blocks.map(|block| block.text.as_str()).collect();
        assert!(!script.is_empty(), "{} has no block of the test {test}", self.path);
        script
    }
}

/// What operators read.
pub(super) fn pages() -> Result<Vec<Page>> {
    let mut paths =
        vec!["README.md".to_owned(), "deploy/README.md".into(), "grafana/README.md".into()];
    let mut docs: Vec<PathBuf> = fs::read_dir(repository().join("docs"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    docs.retain(|path| path.extension().is_some_and(|end| end == "md"));
    docs.sort();
    for path in docs {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        paths.push(format!("docs/{name}"));
    }
    paths.iter().map(|path| Page::read(path)).collect()
}
