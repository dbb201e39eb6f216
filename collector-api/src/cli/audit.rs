//! `audit`: who changed what.

use clap::Subcommand;

use super::client::Client;
use super::door::Paging;
use super::table::{Column, Output, print_page};

const COLUMNS: &[Column] = &[
    ("AT", "/at"),
    ("WHO", "/actor_name"),
    ("ACTOR", "/actor"),
    ("ACTION", "/action"),
    ("OBJECT", "/object_id"),
    ("DETAIL", "/detail"),
];

/// `audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List changes, newest first.
    List {
        /// Only those of the object with this id, such as a host's.
        #[arg(long, value_name = "ID")]
        object: Option<String>,
        /// How much of it.
        #[command(flatten)]
        paging: Paging,
    },
}

impl AuditCommand {
    /// Does it.
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let Self::List { object, paging } = self;
        let query: Vec<_> = object.iter().map(|id| ("object_id", id.as_str())).collect();
        print_page(&paging.all(client, &["audit-events"], &query).await?, COLUMNS, output)
    }
}
