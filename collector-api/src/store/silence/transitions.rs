//! Alerts that begin and end, each with what is to be told, in the caller's transaction.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// With this many alerts of one fingerprint within an hour before it, an alert is muted.
const FLAPS: i64 = 3;

/// An alert to be opened.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// The rule and its object: while one is open, no other is opened.
    pub fingerprint: String,
    /// What the rule is called.
    pub rule: String,
    /// The rule over samples; none: a rule of the sweep.
    pub rule_id: Option<Uuid>,
    /// As in the table.
    pub severity: String,
    /// None: of the fleet.
    pub host_id: Option<Uuid>,
    /// Since when the condition holds; none: now.
    pub began_at: Option<OffsetDateTime>,
    /// What the rule found.
    pub detail: Value,
}

impl NewAlert {
    /// One of the fleet: the rule is its fingerprint.
    pub fn of_fleet(rule: &str, severity: &str, detail: Value) -> Self {
        Self {
            fingerprint: rule.to_owned(),
            rule: rule.to_owned(),
            rule_id: None,
            severity: severity.to_owned(),
            host_id: None,
            began_at: None,
            detail,
        }
    }
}

/// Opens those that are not open yet, to be told after `hold_s`. The fourth within an hour is told as
/// flapping; it and what comes after it is muted. Channels of kind `alertmanager` have no messages: they are
/// sent every alert that is open ([`crate::alerts::alertmanager`]).
pub async fn open_alerts(
    transaction: &mut sqlx::PgTransaction<'_>,
    new: &[NewAlert],
    hold_s: f64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = new.iter().map(|_| Uuid::now_v7()).collect();
    let fingerprints: Vec<&str> = new.iter().map(|alert| alert.fingerprint.as_str()).collect();
    let rules: Vec<&str> = new.iter().map(|alert| alert.rule.as_str()).collect();
    let severities: Vec<&str> = new.iter().map(|alert| alert.severity.as_str()).collect();
    let hosts: Vec<Option<Uuid>> = new.iter().map(|alert| alert.host_id).collect();
    let began: Vec<Option<OffsetDateTime>> = new.iter().map(|alert| alert.began_at).collect();
    let rule_ids: Vec<Option<Uuid>> = new.iter().map(|alert| alert.rule_id).collect();
    let details: Vec<&Value> = new.iter().map(|alert| &alert.detail).collect();
    sqlx::query_scalar!(
        "-- open_alerts
        with given as (
            select t.*, (select count(*) from alerts a where a.fingerprint = t.fingerprint
                and a.fired_at > now() - interval '1 hour') as before
            from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[], $7::jsonb[],
                $10::uuid[]) as t (alert_id, fingerprint, rule, severity, host_id, began_at, detail, rule_id)),
        opened as (
            insert into alerts (alert_id, fingerprint, rule, severity, host_id, began_at, detail, muted, rule_id,
                renotify_at)
            select alert_id, fingerprint, rule, severity, host_id, coalesce(began_at, now()), detail,
                before >= $9, rule_id,
                case when severity <> 'info' and before < $9 and rule <> 'observation_gap'
                    then now() + interval '1 hour' end
            from given
            on conflict (fingerprint) where resolved_at is null do nothing
            returning alert_id),
        told as (
            insert into notifications (channel_id, alert_id, kind, next_at)
            select c.channel_id, o.alert_id, case when g.before = $9 then 'flapping' else 'fired' end,
                now() + $8 * interval '1 s'
            from opened o join given g using (alert_id), channels c
            where c.enabled and c.kind <> 'alertmanager' and g.before <= $9
            order by o.alert_id, c.channel_id)
        select alert_id from opened",
        &ids,
        &fingerprints as _,
        &rules as _,
        &severities as _,
        &hosts as _,
        &began as _,
        &details as _,
        hold_s,
        FLAPS,
        &rule_ids as _,
    )
    .fetch_all(&mut **transaction)
    .await
}

/// Ends alerts; whoever was told of the beginning is told of the end.
pub async fn resolve_alerts(
    transaction: &mut sqlx::PgTransaction<'_>,
    ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- resolve_alerts
        with over as (
            update alerts set state = 'resolved', resolved_at = now()
            where alert_id = any($1) and resolved_at is null
            returning alert_id, rule)
        insert into notifications (channel_id, alert_id, kind, next_at)
        select n.channel_id, n.alert_id, 'resolved', greatest(n.next_at, now())
        from notifications n join over o using (alert_id)
        where n.kind = 'fired' and o.rule <> 'observation_gap'
        on conflict do nothing",
        ids
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
