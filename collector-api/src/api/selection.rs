//! Which hosts a question is about: one, those with certain labels, or all.

use uuid::Uuid;

use super::hosts::resolve_host;
use super::params;
use crate::error::ApiResult;
use crate::selector::Selector;
use crate::store::Store;
use crate::store::question::Class;

/// Longest selector, bytes.
const MAX_SELECTOR_BYTES: usize = 2048;

/// As the parameters `host` and `labels` say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    /// Id or name.
    pub(super) host: Option<&'a str>,
    /// See [`Selector`].
    pub(super) labels: Option<&'a str>,
}

/// The hosts; `None`: all. A selector that no host matches gives an empty list.
pub(super) async fn resolve(
    store: &Store,
    selection: Selection<'_>,
) -> ApiResult<Option<Vec<Uuid>>> {
    let labels = selection.labels.map(selector).transpose()?;
    match (selection.host, labels) {
        (Some(_), Some(_)) => {
            Err(params::bad_parameter("labels", "cannot be combined with `host`"))
        }
        (Some(host), None) => Ok(Some(vec![resolve_host(store, host).await?])),
        (None, Some(labels)) => Ok(Some(store.hosts_with(&labels).await?)),
        (None, None) => Ok(None),
    }
}

/// The limits of a question about these hosts.
pub(super) fn class(hosts: Option<&[Uuid]>) -> Class {
    if hosts.is_some_and(|hosts| hosts.len() <= 1) { Class::Window } else { Class::Fleet }
}

/// Reads the parameter `labels`.
pub(super) fn selector(text: &str) -> ApiResult<Selector> {
    parse(text).map_err(|detail| params::bad_parameter("labels", detail))
}

/// Reads a selector, or says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Selector, String> {
    if text.len() > MAX_SELECTOR_BYTES {
        return Err(format!("must not be longer than {MAX_SELECTOR_BYTES} bytes"));
    }
    Selector::parse(text).map_err(|error| error.to_string())
}
