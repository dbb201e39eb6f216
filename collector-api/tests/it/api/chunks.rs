//! A question reads the chunks of its window and no others, by the database's own count.

use fleet_sim::database::{Engine, TestDatabase};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::kit::{host, sql};

/// What each question reads at most: begin and end of its window, in days of March 2026.
const QUESTIONS: [(&str, &str, &str); 8] = [
    ("select count(*) from procfleet_top({hosts}, {from}, {to}, 'cpu')", "10 03:07", "10 03:19"),
    (
        "select count(*) from procfleet_top({hosts}, {from}, {to}, 'disk', 'process')",
        "10 03:07",
        "10 04:19",
    ),
    (
        "select count(*) from procfleet_top({hosts}, {from}, {to}, 'memory', 'host')",
        "9 03:07",
        "11 04:19",
    ),
    (
        "select count(*) from procfleet_host_totals('00000000-0000-0000-0000-000000000001', {from}, {to})",
        "9 03:07",
        "11 04:19",
    ),
    (
        "select count(*) from procfleet_host_series('00000000-0000-0000-0000-000000000001', {from}, {to}, '30 s')",
        "10 03:07",
        "10 04:19",
    ),
    (
        "select count(*) from procfleet_process_series('00000000-0000-0000-0000-000000000001', null, 1, {from}, {to}, '1 hour', 5)",
        "9 03:07",
        "11 04:19",
    ),
    ("select count(*) from procfleet_coverage({hosts}, {from}, {to})", "9 03:07", "11 04:19"),
    (
        "select count(*) from procfleet_compare({hosts}, {from}, {to}, {from}, {to}, 'network')",
        "9 03:07",
        "11 04:19",
    ),
];

async fn fill(db: &mut PgConnection, engine: Engine) {
    sql(db, "insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
        values ('00000000-0000-0000-0000-000000000001', 'test', sha256('x'), now() + interval '1 day')").await;
    for number in 1..=3 {
        host(db, number, "host").await;
    }
    if engine == Engine::PostgreSql {
        sql(db, "do $$ declare name text; day timestamptz; begin
            for name in select series from series loop
                for day in select generate_series(timestamptz '2026-02-25 00:00+00', '2026-03-25', '1 day') loop
                    execute format('create table %I partition of %I for values from (%L) to (%L)',
                        name || '_p' || to_char(day at time zone 'utc', 'YYYYMMDD') || 't000000', name, day, day + interval '1 day');
                end loop;
            end loop; end $$").await;
    }
    // Something in every hour of four weeks, and roll-ups of it all.
    sql(db, "insert into process_samples (host_number, sampled_at, instance_id, interval_ms, process_count)
            select host_number, t, 1, 30000, 1 from hosts, generate_series(timestamptz '2026-02-25 00:30+00', '2026-03-24', '1 hour') t;
        insert into host_samples (host_id, sampled_at, interval_ms)
            select host_id, t, 30000 from hosts, generate_series(timestamptz '2026-02-25 00:30+00', '2026-03-24', '1 hour') t;
        insert into process_rollup_5m (host_id, sampled_at, instance_id, first_sampled_at, last_sampled_at, covered_ms, sample_count,
                memory_usage_samples, memory_swap_samples, thread_count_samples, file_descriptor_samples, process_count_max)
            select host_id, t, 1, t, t, 1, 1, 0, 0, 0, 0, 1 from hosts, generate_series(timestamptz '2026-02-25 00:30+00', '2026-03-24', '1 hour') t;
insert into block_device_samples (host_id, sampled_at, interval_ms, device)
            select host_id, sampled_at, 30000, 'vda' from host_samples;
        insert into network_interface_samples (host_id, sampled_at, interval_ms, interface)
            select host_id, sampled_at, 30000, 'eth0' from host_samples;
        insert into host_rollup_5m (host_id, sampled_at, first_sampled_at, last_sampled_at, sample_count, covered_ms,
                load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples, memory_used_samples,
                memory_available_samples, memory_free_samples, swap_total_samples, swap_used_samples, agent_memory_usage_samples,
                agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples, processes_total_samples)
            select host_id, sampled_at, sampled_at, sampled_at, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 from host_samples;
        insert into host_rollup_1h select * from host_rollup_5m;
                    insert into process_rollup_1h select * from process_rollup_5m;
        update rollup_watermark set expanded = '2026-03-24', horizon = '2026-03-24'").await;
}

#[tokio::test]
async fn a_question_reads_the_chunks_of_its_window_and_no_others() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let mut db = database.connect().await.unwrap();
        fill(&mut db, engine).await;
        for (question, from, to) in QUESTIONS {
            let stamp = |at: &str| format!("timestamptz '2026-03-{at}+00'");
            for hosts in ["null", "array['00000000-0000-0000-0000-000000000001']::uuid[]"] {
                let text = question
                    .replace("{hosts}", hosts)
                    .replace("{from}", &stamp(from))
                    .replace("{to}", &stamp(to));
                // What this session counted before is not counted again.
                sql(&mut db, "select pg_stat_force_next_flush()").await;
                let mut transaction = db.begin().await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(text.clone()))
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                let read: Vec<String> = sqlx::query_scalar(
                    "select format('%I.%I', schemaname, relname) from pg_stat_xact_user_tables
                     where coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0 and (relname like '%\\_chunk' or relname ~ '_p\\d{8}t\\d{6}$')",
                )
                .fetch_all(&mut *transaction)
                .await
                .unwrap();
                transaction.rollback().await.unwrap();
                assert!(!read.is_empty(), "{text}");
                for chunk in &read {
                    // A chunk of the window holds a row of it, up to the hour that the window cuts.
                    let touches: bool = sqlx::query_scalar(AssertSqlSafe(format!(
                        "select max(sampled_at) > {from} - interval '1 hour' and min(sampled_at) <= {to} + interval '1 hour' from {chunk}",
                        from = stamp(from), to = stamp(to)
                    )))
                    .fetch_one(&mut db)
                    .await
                    .unwrap();
                    assert!(touches, "{text} reads {chunk}");
                }
            }
        }
    }
}
