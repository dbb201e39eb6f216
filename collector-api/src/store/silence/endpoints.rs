//! Endpoints that do not answer, by the word of hosts that report through another one.
//!
//! One alert for each endpoint, `endpoint_down`, as soon as [`MIN_WITNESSES`] hosts say so (all of them, in a smaller fleet): one
//! host alone may have trouble of its own. It holds the number of witnesses, and is over when nobody has said so for three
//! minutes: agents ask an endpoint that failed every two minutes, and stop to tell of it once it answers.

use serde_json::json;
use uuid::Uuid;

use super::{NewAlert, open_alerts, resolve_alerts};
use crate::store::{Store, StoreError};

/// Hosts that must say the same.
const MIN_WITNESSES: i64 = 3;

impl Store {
    /// Notes that `hosts[i]` cannot reach `endpoints[i]`.
    pub async fn note_endpoint_witnesses(
        &self,
        endpoints: &[&str],
        hosts: &[Uuid],
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- Store::note_endpoint_witnesses
            insert into endpoint_witnesses (endpoint, host_id)
            select t.endpoint, t.host_id from unnest($1::text[], $2::uuid[]) t (endpoint, host_id) join hosts using (host_id)
            order by 1, 2
            on conflict (endpoint, host_id) do update set seen_at = now()",
            endpoints as _,
            hosts,
        )
        .execute(&self.pool)
        .await
        .map_err(StoreError::of("note_endpoint_witnesses"))?;
        Ok(())
    }
}

/// Opens, updates and ends the alerts. How many were opened and ended.
pub(super) async fn judge(
    transaction: &mut sqlx::PgTransaction<'_>,
    reporting: i64,
) -> Result<(usize, usize), sqlx::Error> {
    sqlx::query!(
        "-- Store::sweep_silence.endpoints_forget
        delete from endpoint_witnesses where seen_at < now() - interval '3 minutes'"
    )
    .execute(&mut **transaction)
    .await?;
    let down = sqlx::query!(
        r#"-- Store::sweep_silence.endpoints_down
        select endpoint, count(*) as "witnesses!" from endpoint_witnesses group by endpoint order by endpoint"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let enough = MIN_WITNESSES.min(reporting.max(1));
    let new: Vec<NewAlert> = down
        .iter()
        .filter(|row| row.witnesses >= enough)
        .map(|row| {
            let (object, witnesses) = (&row.endpoint, row.witnesses);
            let detail = json!({ "object": object, "witnesses": witnesses, "hosts": reporting });
            NewAlert {
                fingerprint: format!("endpoint_down:{object}"),
                ..NewAlert::of_fleet("endpoint_down", "critical", detail)
            }
        })
        .collect();
    let opened = open_alerts(transaction, &new, 0.0).await?.len();
    let over = sqlx::query_scalar!(
        r#"-- Store::sweep_silence.endpoints_told
        with counted as (
            select 'endpoint_down:' || endpoint as fingerprint, count(*) as witnesses from endpoint_witnesses group by endpoint),
        told as (
            update alerts a set detail = a.detail || jsonb_build_object('witnesses', c.witnesses, 'hosts', $1::bigint)
            from counted c
            where a.fingerprint = c.fingerprint and a.resolved_at is null
              and (a.detail->>'witnesses')::bigint is distinct from c.witnesses)
        select a.alert_id from alerts a
        where a.rule = 'endpoint_down' and a.resolved_at is null
          and not exists (select from counted c where c.fingerprint = a.fingerprint)"#,
        reporting,
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &over).await?;
    Ok((opened, over.len()))
}
