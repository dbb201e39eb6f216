//! Hosts that are rows: as many as a test of the servers' own work needs, without agents.

use anyhow::Result;
use sqlx::PgConnection;

/// `count` hosts, `host-1` and so on in four racks, that were heard just now and report every 30 s.
pub async fn create(connection: &mut PgConnection, count: i32) -> Result<()> {
    sqlx::query(
        "with token as (
            insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
            values (gen_random_uuid(), 'heartbeats', sha256('heartbeats'), now()) returning token_id),
        made as (
            insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id, labels)
            select gen_random_uuid(), 'host-' || n, '6.1', 'x86_64', '0', token_id,
                jsonb_build_object('rack', 'r' || n % 4)
            from token, generate_series(1, $1) n returning host_id)
        insert into heartbeats (host_id, last_seen_at, last_sampled_at, interval_ms, deadline_at)
        select host_id, now(), now(), 30000, procfleet_deadline(now(), 30000) from made",
    )
    .bind(count)
    .execute(connection)
    .await?;
    Ok(())
}
