//! Which hosts a question is about: one, those with certain labels, or all.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::hosts::resolve_host;
use super::params;
use crate::error::ApiResult;
use crate::store::Store;
use crate::store::question::Class;

/// Most labels of a selector.
const MAX_LABELS: usize = 16;
/// Longest selector, bytes.
const MAX_SELECTOR_BYTES: usize = 2048;

/// As the parameters `host` and `labels` say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a> {
    /// Id or name.
    pub(super) host: Option<&'a str>,
    /// `name=value`, separated by commas.
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

/// Reads `name=value,name=value`.
pub(super) fn selector(text: &str) -> ApiResult<BTreeMap<String, String>> {
    let text = params::search("labels", Some(text), MAX_SELECTOR_BYTES)?;
    let wrong = || {
        params::bad_parameter(
            "labels",
            format!("must be 1 to {MAX_LABELS} different `name=value`, separated by commas"),
        )
    };
    let mut labels = BTreeMap::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), value.trim());
        let known = labels.insert(name.to_owned(), value.to_owned());
        if name.is_empty() || known.is_some() || labels.len() > MAX_LABELS {
            return Err(wrong());
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_pairs_of_names_and_values() {
        let labels = selector("env=prod, role=a=b,empty=").unwrap();
        let pairs: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("empty", ""), ("env", "prod"), ("role", "a=b")]);
        let many = (0..17).map(|n| format!("l{n}=x")).collect::<Vec<_>>().join(",");
        for wrong in ["", "env", "=x", "a=1,a=2", "a=1,", many.as_str(), "a=\0"] {
            let error = selector(wrong).unwrap_err();
            assert_eq!(error.problem.errors[0].field, "labels", "{wrong}");
        }
    }
}
