//! What the sweep does for alerts that stay: acknowledgements run out, and who was told is told again.

/// Most alerts told again in one round.
const MAX_REPEATED: i64 = 500;

/// An acknowledgement has an end: after it the alert is told again.
pub(super) async fn expire_acknowledgements(
    transaction: &mut sqlx::PgTransaction<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::sweep_silence.expire
        update alerts set state = 'firing', acknowledged_by = null, acknowledged_until = null,
            renotify_at = case when renotify_at is not null then now() end
        where state = 'acknowledged' and acknowledged_until <= now()"
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Whoever was told that an alert began is told that it still holds: after an hour, four hours more, then
/// every day, until it is over or somebody acknowledges it. Not while something larger explains it: of
/// a silent host only that it is silent, and of many only that they are many.
pub(super) async fn renotify(
    transaction: &mut sqlx::PgTransaction<'_>,
) -> Result<u64, sqlx::Error> {
    let told = sqlx::query!(
        "-- Store::sweep_silence.renotify
        with due as (
            select a.alert_id from alerts a
            where a.resolved_at is null and a.state = 'firing' and not a.muted and a.renotify_at <= now()
              and not (a.rule_id is not null and exists (select from alerts s
                  where s.fingerprint = 'host_silent:' || a.host_id and s.resolved_at is null))
              and not (a.rule = 'host_silent' and exists (select from alerts m
                  where m.fingerprint in ('mass_silence', 'no_reports') and m.resolved_at is null))
            order by a.renotify_at limit $1),
        moved as (
            update alerts a set renotified = a.renotified + 1,
                renotify_at = now() + case a.renotified when 0 then interval '4 hours' else interval '24 hours' end
            from due where a.alert_id = due.alert_id
            returning a.alert_id, a.renotified)
        insert into notifications (channel_id, alert_id, kind, round)
        select n.channel_id, n.alert_id, 'renotified', m.renotified
        from moved m join notifications n using (alert_id) join channels c using (channel_id)
        where n.kind = 'fired' and n.state = 'sent' and c.enabled
        on conflict do nothing",
        MAX_REPEATED
    )
    .execute(&mut **transaction)
    .await?;
    Ok(told.rows_affected())
}
