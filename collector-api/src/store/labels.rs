//! Labels of hosts, and which hosts a selector means.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::lock_host;
use crate::selector::{Selector, is_name, is_value};
use crate::store::{Store, StoreError};

/// Labels of a host: name to value.
pub type Labels = BTreeMap<String, String>;

/// A host that a selector means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its id.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: String,
    /// Its life cycle, never `decommissioned`.
    pub lifecycle: String,
    /// Its labels.
    pub labels: Json<Labels>,
}

/// What became of a change of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsChange {
    /// Done.
    Changed,
    /// They were so already.
    Unchanged,
    /// There is no such host.
    NoHost,
    /// They are not those that were expected: somebody else changed them.
    Stale,
    /// More labels than a host may have.
    TooMany,
}

/// Names a state of a host's labels: the first half of their SHA-256, hex.
pub fn labels_tag(labels: &Labels) -> String {
    let mut digest = Sha256::new();
    // No name and no value holds NUL.
    for (name, value) in labels {
        digest.update(format!("{name}\0{value}\0"));
    }
    let half = u128::from_be_bytes(*digest.finalize().first_chunk().unwrap_or(&[0; 16]));
    format!("{half:032x}")
}

/// How labels are to change.
#[derive(Clone, Debug, Default)]
pub struct LabelsEdit {
    /// Whether those not named are removed.
    pub replace: bool,
    /// Given or given another value.
    pub set: Labels,
    /// Taken away.
    pub remove: Vec<String>,
    /// Changes them only if this is their [`labels_tag`]; none: whatever they are.
    pub expected: Option<String>,
}

/// Most labels of a host.
pub const MAX_LABELS: usize = 32;

/// Whether a host can have these labels, or what is wrong with them.
pub fn check_labels(labels: &Labels) -> Result<(), String> {
    if labels.len() > MAX_LABELS {
        return Err(format!("has more than {MAX_LABELS} names"));
    }
    match labels.iter().find(|(name, value)| !is_name(name) || !is_value(value)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "has {name:?}: a name has 1 to 63 letters, digits, `.`, `_`, `-` and `/`; a value at most 255 bytes without commas and parentheses"
        )),
    }
}

impl LabelsEdit {
    /// What labels become.
    pub fn apply(&self, labels: &Labels) -> Labels {
        let mut edited = if self.replace { Labels::new() } else { labels.clone() };
        edited.retain(|name, _| !self.remove.contains(name));
        edited.extend(self.set.clone());
        edited
    }
}

impl Store {
    /// Hosts that are not decommissioned and match, by name and id, at most `limit`.
    pub async fn hosts_selected(
        &self,
        selector: &Selector,
        limit: i64,
    ) -> Result<Vec<Selected>, StoreError> {
        sqlx::query_as!(
            Selected,
            r#"-- Store::hosts_selected
            select host_id, host_name, lifecycle, labels as "labels: Json<Labels>" from hosts
            where lifecycle <> 'decommissioned' and procfleet_selects(labels, $1)
            order by host_name, host_id limit $2"#,
            Json(selector) as _,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("hosts_selected"))
    }

    /// The labels of a host; none: there is no such host.
    pub async fn host_labels(&self, host_id: Uuid) -> Result<Option<Labels>, StoreError> {
        let labels = sqlx::query_scalar!(
            r#"-- Store::host_labels
            select labels as "labels: Json<Labels>" from hosts where host_id = $1"#,
            host_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("host_labels"))?;
        Ok(labels.map(|Json(labels)| labels))
    }

    /// Changes the labels of a host.
    pub async fn edit_labels(
        &self,
        host_id: Uuid,
        edit: &LabelsEdit,
        actor: &Actor,
    ) -> Result<LabelsChange, StoreError> {
        self.try_edit_labels(host_id, edit, actor).await.map_err(StoreError::of("edit_labels"))
    }

    async fn try_edit_labels(
        &self,
        host_id: Uuid,
        edit: &LabelsEdit,
        actor: &Actor,
    ) -> Result<LabelsChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if lock_host(&mut transaction, host_id).await?.is_none() {
            return Ok(LabelsChange::NoHost);
        }
        let before = sqlx::query_scalar!(
            r#"-- Store::edit_labels
            select labels as "labels: Json<Labels>" from hosts where host_id = $1"#,
            host_id
        )
        .fetch_one(&mut *transaction)
        .await?
        .0;
        if edit.expected.as_ref().is_some_and(|expected| *expected != labels_tag(&before)) {
            return Ok(LabelsChange::Stale);
        }
        let after = edit.apply(&before);
        if after == before {
            return Ok(LabelsChange::Unchanged);
        }
        if after.len() > MAX_LABELS && after.len() > before.len() {
            return Ok(LabelsChange::TooMany);
        }
        sqlx::query!(
            "-- Store::edit_labels
            update hosts set labels = $2 where host_id = $1",
            host_id,
            Json(&after) as _
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "from": before, "to": after });
        record_host(&mut transaction, actor, "host.label", host_id, detail).await?;
        transaction.commit().await?;
        Ok(LabelsChange::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn what_is_set_goes_before_what_is_removed() {
        let before = labels(&[("env", "test"), ("role", "db")]);
        let edit = LabelsEdit {
            replace: false,
            set: labels(&[("env", "prod")]),
            remove: vec!["role".into(), "env".into()],
            expected: None,
        };
        assert_eq!(edit.apply(&before), labels(&[("env", "prod")]));
        let replace = LabelsEdit { replace: true, ..LabelsEdit::default() };
        assert_eq!(replace.apply(&before), labels(&[]));
    }
}
