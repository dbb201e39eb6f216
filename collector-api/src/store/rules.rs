//! `rules`: conditions on samples, as operators write them.

pub mod observations;
pub mod round;

use serde::Serialize;
use serde_json::json;
use sqlx::types::Json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use self::observations::{Observed, Source, Span, observe};
use self::round::JudgedHost;
use super::audit::{Actor, record};
use super::labels::Labels;
use super::silence::resolve_alerts;
use super::{Store, StoreError};

/// Most rules: each is asked of every report.
pub const MAX_RULES: i64 = 200;

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Rule {
    /// A `UUIDv7`.
    pub rule_id: Uuid,
    /// What operators call it; its alerts bear it as `rule`.
    pub name: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Whether reports are judged by it.
    pub enabled: bool,
    /// Hosts by their labels, as it was written; empty: every host.
    pub selector: String,
    /// Such as `host.cpu_ratio`.
    pub metric: String,
    /// Text that the mount point, device, interface or command line contains; null: any.
    pub object: Option<String>,
    /// Whether the condition is to lie below the threshold, not above it.
    pub below: bool,
    /// The condition holds strictly beyond it.
    pub threshold: f64,
    /// The condition is gone at it or on its other side.
    pub recover_threshold: f64,
    /// How long the condition must hold before the alert, s.
    pub for_s: i32,
    /// How long it must be gone before the alert is over, s.
    pub recover_for_s: i32,
    /// Whether it came with the server.
    pub built_in: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What became of a rule to be made or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleChange {
    /// Done.
    Done,
    /// Another one has the name.
    NameTaken,
    /// There are [`MAX_RULES`].
    TooMany,
    /// There is no such rule.
    NoRule,
}

impl Store {
    /// Every rule, by name.
    pub async fn rules(&self) -> Result<Vec<Rule>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::of("rules"))?;
        read(&mut connection).await.map_err(StoreError::of("rules"))
    }

    /// What one host reported: for a dry run.
    pub async fn observe(
        &self,
        span: Span,
        sources: &[Source],
        max_ticks: usize,
    ) -> Result<Observed, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(StoreError::of("observe"))?;
        observe(&mut connection, vec![span], sources, max_ticks)
            .await
            .map_err(StoreError::of("observe"))
    }

    /// Every active host, as rules see it, and its name: for a dry run.
    pub async fn judged_hosts(&self) -> Result<Vec<(JudgedHost, String)>, StoreError> {
        let rows = sqlx::query!(
            r#"-- Store::judged_hosts
            select host_id, host_name, labels as "labels: Json<Labels>" from hosts
            where lifecycle = 'active' order by host_id"#
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("judged_hosts"))?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let (host_id, labels) = (row.host_id, row.labels.0);
                (JudgedHost { host_id, labels, lost_reports: None }, row.host_name)
            })
            .collect())
    }

    /// Makes a rule. Reports that come from now on are judged by it.
    pub async fn create_rule(&self, rule: &Rule, actor: &Actor) -> Result<RuleChange, StoreError> {
        self.try_create_rule(rule, actor).await.map_err(StoreError::of("create_rule"))
    }

    async fn try_create_rule(&self, rule: &Rule, actor: &Actor) -> Result<RuleChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let known = sqlx::query_scalar!(
            r#"-- Store::create_rule.count
            select count(*) as "count!" from rules"#
        )
        .fetch_one(&mut *transaction)
        .await?;
        if known >= MAX_RULES {
            return Ok(RuleChange::TooMany);
        }
        let made = sqlx::query!(
            "-- Store::create_rule
            insert into rules (rule_id, name, severity, enabled, selector, metric, object, below, threshold,
                recover_threshold, for_s, recover_for_s)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (name) do nothing",
            rule.rule_id,
            rule.name,
            rule.severity,
            rule.enabled,
            rule.selector,
            rule.metric,
            rule.object,
            rule.below,
            rule.threshold,
            rule.recover_threshold,
            rule.for_s,
            rule.recover_for_s,
        )
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(RuleChange::NameTaken);
        }
        let object = rule.rule_id.to_string();
        let detail = json!({ "rule": rule });
        record(&mut transaction, actor, "rule.create", ("rule", &object), detail).await?;
        transaction.commit().await?;
        Ok(RuleChange::Done)
    }

    /// Puts another rule in the place of one. Alerts of the old one are over: they were about something else.
    pub async fn replace_rule(&self, rule: &Rule, actor: &Actor) -> Result<RuleChange, StoreError> {
        self.try_replace_rule(rule, actor).await.map_err(StoreError::of("replace_rule"))
    }

    async fn try_replace_rule(
        &self,
        rule: &Rule,
        actor: &Actor,
    ) -> Result<RuleChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let taken = sqlx::query_scalar!(
            r#"-- Store::replace_rule.name
            select exists (select from rules where name = $1 and rule_id <> $2) as "taken!""#,
            rule.name,
            rule.rule_id,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if taken {
            return Ok(RuleChange::NameTaken);
        }
        let replaced = sqlx::query!(
            "-- Store::replace_rule
            update rules set name = $2, severity = $3, enabled = $4, selector = $5, metric = $6, object = $7,
                below = $8, threshold = $9, recover_threshold = $10, for_s = $11, recover_for_s = $12
            where rule_id = $1",
            rule.rule_id,
            rule.name,
            rule.severity,
            rule.enabled,
            rule.selector,
            rule.metric,
            rule.object,
            rule.below,
            rule.threshold,
            rule.recover_threshold,
            rule.for_s,
            rule.recover_for_s,
        )
        .execute(&mut *transaction)
        .await?;
        if replaced.rows_affected() == 0 {
            return Ok(RuleChange::NoRule);
        }
        let ended = forget(&mut transaction, rule.rule_id).await?;
        let object = rule.rule_id.to_string();
        let detail = json!({ "rule": rule, "alerts_ended": ended });
        record(&mut transaction, actor, "rule.replace", ("rule", &object), detail).await?;
        transaction.commit().await?;
        Ok(RuleChange::Done)
    }

    /// Removes a rule; its alerts are over. False: there is none.
    pub async fn delete_rule(&self, rule_id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
        self.try_delete_rule(rule_id, actor).await.map_err(StoreError::of("delete_rule"))
    }

    async fn try_delete_rule(&self, rule_id: Uuid, actor: &Actor) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let ended = forget(&mut transaction, rule_id).await?;
        let name = sqlx::query_scalar!(
            "-- Store::delete_rule
            delete from rules where rule_id = $1 returning name",
            rule_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(name) = name else { return Ok(false) };
        let object = rule_id.to_string();
        let detail = json!({ "name": name, "alerts_ended": ended });
        record(&mut transaction, actor, "rule.delete", ("rule", &object), detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

async fn read(connection: &mut sqlx::PgConnection) -> Result<Vec<Rule>, sqlx::Error> {
    sqlx::query_as!(
        Rule,
        "-- Store::rules
        select rule_id, name, severity, enabled, selector, metric, object, below, threshold,
            recover_threshold, for_s, recover_for_s, built_in, created_at
        from rules order by name"
    )
    .fetch_all(connection)
    .await
}

/// Ends the alerts of a rule and forgets what it found. Returns how many alerts.
async fn forget(
    transaction: &mut sqlx::PgTransaction<'_>,
    rule_id: Uuid,
) -> Result<usize, sqlx::Error> {
    // A round under way holds the rule for share: it is waited for, and none begins before this commits.
    sqlx::query!(
        "-- rules.forget.lock\nselect rule_id from rules where rule_id = $1 for update",
        rule_id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    sqlx::query!("-- rules.forget.states\ndelete from rule_states where rule_id = $1", rule_id)
        .execute(&mut **transaction)
        .await?;
    let open = sqlx::query_scalar!(
        "-- rules.forget.alerts
        select alert_id from alerts where rule_id = $1 and resolved_at is null",
        rule_id
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &open).await?;
    Ok(open.len())
}
