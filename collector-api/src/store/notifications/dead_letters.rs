//! A channel that does not deliver is itself an alert, `notification_dead`: told through every other channel,
//! over as soon as the channel delivers again or is removed. At most one is open for each channel, so two channels
//! that fail both tell of each other once and no more.

use serde_json::json;
use uuid::Uuid;

use crate::store::silence::{NewAlert, open_alerts, resolve_alerts};

/// Opens it, unless it is open: something of the channel was given up, because of `why`.
pub(in crate::store) async fn open(
    transaction: &mut sqlx::PgTransaction<'_>,
    channel_id: Uuid,
    why: &str,
) -> Result<(), sqlx::Error> {
    let name = sqlx::query_scalar!(
        "-- dead_letters.open.channel
        select name from channels where channel_id = $1",
        channel_id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(name) = name else { return Ok(()) };
    let detail = json!({ "object": name, "channel_id": channel_id, "why": why });
    let alert = NewAlert {
        fingerprint: fingerprint(channel_id),
        ..NewAlert::of_fleet("notification_dead", "critical", detail)
    };
    let opened = open_alerts(transaction, &[alert], 0.0).await?;
    sqlx::query!(
        "-- dead_letters.open.others
        delete from notifications where alert_id = any($1) and channel_id = $2",
        &opened,
        channel_id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends it, if it is open.
pub(in crate::store) async fn resolve(
    transaction: &mut sqlx::PgTransaction<'_>,
    channel_id: Uuid,
) -> Result<(), sqlx::Error> {
    let open = sqlx::query_scalar!(
        "-- dead_letters.resolve
        select alert_id from alerts where fingerprint = $1 and resolved_at is null",
        fingerprint(channel_id)
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &open).await
}

fn fingerprint(channel_id: Uuid) -> String {
    format!("notification_dead:{channel_id}")
}
