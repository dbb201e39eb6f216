//! Windows over samples and roll-ups: whatever is read, the sums are those of the samples.

use fleet_sim::database::Engine;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::kit::{Api, host, instance, query, sql};

/// Samples end at `BEGIN` + 30 s, + 60 s, …
const BEGIN: OffsetDateTime = datetime!(2026-03-01 00:00 UTC);
const TICKS: i64 = 27 * 120;
const INSTANCES: std::ops::RangeInclusive<i64> = 0..=3;

fn at(tick: i64) -> OffsetDateTime {
    BEGIN + Duration::seconds(30 * tick)
}

/// What instance `id` of host `host` used in a tick.
fn cpu(host: i64, id: i64, tick: i64) -> i64 {
    (tick * 7 + id * 1301 + host * 17) % 1000
}

/// The same in SQL; memory and disk are made of it.
const SAMPLES: &str = "insert into process_samples (host_number, sampled_at, instance_id, interval_ms, process_count,
        cpu_user_us, cpu_system_us, memory_usage_bytes, disk_read_bytes)
    select (select host_number from hosts where host_id = lpad(h::text, 32, '0')::uuid), timestamptz '2026-03-01 00:00+00' + k * interval '30 s', i, 30000, 1,
           (k * 7 + i * 1301 + h * 17) % 1000, 1, 1000 + (k * 7 + i * 1301 + h * 17) % 1000, case when i = 1 then 5 end
    from generate_series(1, 27 * 120) k, generate_series(1, 2) h, generate_series(0, 3) i;
    insert into host_samples (host_id, sampled_at, interval_ms, cpu_user_us, load_1m)
    select lpad(h::text, 32, '0')::uuid, timestamptz '2026-03-01 00:00+00' + k * interval '30 s', 30000, k, k
    from generate_series(1, 27 * 120) k, generate_series(1, 2) h;";

/// Roll-ups computed here from the samples, by this text and not by the server's.
async fn roll_up(db: &mut PgConnection, table: &str, width: &str) {
    sql(
        db,
        &format!(
            "insert into process_{table} (host_id, instance_id, sampled_at, first_sampled_at, last_sampled_at, sample_count,
                 covered_ms, cpu_covered_ms, cpu_user_us, cpu_system_us, cpu_cores_max, memory_usage_bytes_sum, memory_usage_bytes_max,
                 memory_usage_samples, disk_read_bytes, memory_swap_samples, thread_count_samples, file_descriptor_samples, process_count_max)
             select host_id, instance_id, date_bin('{width}', sampled_at - interval '1 us', '2000-01-01 00:00+00') + interval '{width}',
                    min(sampled_at), max(sampled_at), count(*), sum(interval_ms), sum(interval_ms), sum(cpu_user_us), sum(cpu_system_us),
                    max((cpu_user_us + cpu_system_us) / 30000000.0), sum(memory_usage_bytes), max(memory_usage_bytes),
                    count(*), sum(disk_read_bytes), 0, 0, 0, 1
             from procfleet_process_samples group by 1, 2, 3;
             insert into host_{table} (host_id, sampled_at, first_sampled_at, last_sampled_at, sample_count, covered_ms, cpu_user_us,
                 load_1m_sum, load_1m_samples, load_5m_samples, load_15m_samples, memory_total_samples, memory_used_samples,
                 memory_available_samples, memory_free_samples, swap_total_samples, swap_used_samples, agent_memory_usage_samples,
                 agent_spool_reports_samples, agent_spool_bytes_samples, processes_running_samples, processes_total_samples)
             select host_id, date_bin('{width}', sampled_at - interval '1 us', '2000-01-01 00:00+00') + interval '{width}',
                    min(sampled_at), max(sampled_at), count(*), sum(interval_ms), sum(cpu_user_us), sum(load_1m), count(*),
                    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
             from host_samples group by 1, 2;"
        ),
    )
    .await;
}

async fn fleet(api: &Api) -> PgConnection {
    let mut db = api.connect().await;
    for number in 1..=2 {
        let id = host(&mut db, number, &format!("host-{number}")).await;
        for id_of_instance in 1..=3 {
            instance(&mut db, id, id_of_instance, &format!("command {id_of_instance}")).await;
        }
    }
    sql(&mut db, SAMPLES).await;
    sql(&mut db, "update hosts set enrolled_at = '2026-01-01'").await;
    roll_up(&mut db, "rollup_5m", "5 minutes").await;
    roll_up(&mut db, "rollup_1h", "1 hour").await;
    computed_until(&mut db, "2026-03-02 02:30+00").await;
    db
}

async fn computed_until(db: &mut PgConnection, until: &str) {
    sql(db, &format!("update rollup_watermark set expanded = '{until}', horizon = '{until}'"))
        .await;
}

fn window(from: OffsetDateTime, to: OffsetDateTime) -> String {
    let [from, to] = [from, to].map(|at| at.format(&Rfc3339).unwrap());
    format!("{}&{}", query("from", &from), query("to", &to))
}

/// Every sum of one instance over (from, to], counted here tick by tick.
fn truth(host: i64, id: i64, from: OffsetDateTime, to: OffsetDateTime) -> Value {
    let ticks: Vec<i64> = (1..=TICKS).filter(|tick| at(*tick) > from && at(*tick) <= to).collect();
    let used: Vec<i64> = ticks.iter().map(|tick| cpu(host, id, *tick)).collect();
    let count = i64::try_from(ticks.len()).unwrap();
    json!({
        "sample_count": count,
        "covered_ms": count * 30_000,
        "cpu_user_us": used.iter().sum::<i64>(),
        "cpu_us": used.iter().sum::<i64>() + count,
        "memory_usage_bytes_max": used.iter().max().unwrap() + 1000,
        "disk_read_bytes": (id == 1).then_some(count * 5),
        "first_sampled_at": at(ticks[0]).format(&Rfc3339).unwrap(),
        "last_sampled_at": at(*ticks.last().unwrap()).format(&Rfc3339).unwrap(),
    })
}

fn picked(row: &Value, like: &Value) -> Value {
    like.as_object().unwrap().keys().map(|key| (key.clone(), row[key].clone())).collect()
}

async fn check(api: &Api, from: OffsetDateTime, to: OffsetDateTime, resolution: &str) {
    let read = (from, to);
    check_as(api, read, read, resolution).await;
}

/// The answer to `asked` is the truth of `read`.
async fn check_as(
    api: &Api,
    asked: (OffsetDateTime, OffsetDateTime),
    read: (OffsetDateTime, OffsetDateTime),
    resolution: &str,
) {
    let window = window(asked.0, asked.1);
    let answer = api.get(&format!("/v1/top?limit=1000&{window}")).await;
    assert_eq!(answer["coverage"]["resolution"], resolution, "{window}");
    for (field, at) in [("from", read.0), ("to", read.1)] {
        assert_eq!(answer["coverage"][field], at.format(&Rfc3339).unwrap(), "{window}");
    }
    let rows = answer["items"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{window}");
    for row in rows {
        let id: i64 = row["instance_id"].as_str().unwrap().parse().unwrap();
        let host = if row["host_name"] == "host-1" { 1 } else { 2 };
        let expect = truth(host, id, read.0, read.1);
        assert_eq!(picked(row, &expect), expect, "{window} host {host} instance {id}");
    }
    let residual: i64 =
        [1, 2].map(|host| truth(host, 0, read.0, read.1)["cpu_us"].as_i64().unwrap()).iter().sum();
    assert_eq!(answer["residual"]["cpu_us"], residual, "{window}");

    let host = api.get(&format!("/v1/top?by=host&{window}")).await;
    for row in host["items"].as_array().unwrap() {
        let number = if row["host_name"] == "host-1" { 1 } else { 2 };
        let sum: i64 =
            INSTANCES.map(|id| truth(number, id, read.0, read.1)["cpu_us"].as_i64().unwrap()).sum();
        assert_eq!(row["cpu_us"], sum, "{window}");
    }
    let process = api.get(&format!("/v1/top?by=process&{window}")).await;
    for row in process["items"].as_array().unwrap() {
        let id: i64 = row["command_line"].as_str().unwrap()[8..].parse().unwrap();
        let sum: i64 = [1, 2]
            .map(|host| truth(host, id, read.0, read.1)["cpu_us"].as_i64().unwrap())
            .iter()
            .sum();
        assert_eq!((&row["cpu_us"], &row["host_count"]), (&json!(sum), &json!(2)), "{window}");
    }
}

#[tokio::test]
async fn whatever_is_read_the_sums_are_those_of_the_samples() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = fleet(&api).await;
        let odd = Duration::seconds(17);
        check(&api, at(100) + odd, at(130) - odd, "raw").await;
        check(&api, at(100) + odd, at(200) - odd, "5m").await;
        check(&api, at(11) + odd, at(3000) - odd, "1h").await;
        check(&api, at(0), at(TICKS), "1h").await;
        check(&api, at(239), at(TICKS - 1), "1h").await;

        // Roll-ups that have not come yet: samples.
        computed_until(&mut db, "2026-03-01 10:20+00").await;
        check(&api, at(11) + odd, at(TICKS), "1h").await;
        computed_until(&mut db, "2026-02-01 00:00+00").await;
        check(&api, at(11) + odd, at(TICKS), "raw").await;
        computed_until(&mut db, "2026-03-02 02:30+00").await;

        // Roll-ups are read where they are: half of the samples are not needed any more.
        sql(
            &mut db,
            "delete from process_samples where sampled_at > '2026-03-01 04:00+00' and sampled_at <= '2026-03-01 12:00+00';
             delete from process_rollup_5m where sampled_at > '2026-03-01 04:00+00' and sampled_at <= '2026-03-01 12:00+00'",
        )
        .await;
        check(&api, at(11) + odd, at(3000) - odd, "1h").await;
    }
}

#[tokio::test]
async fn late_data_count_before_they_are_rolled_up() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = fleet(&api).await;
        // The roll-ups of two buckets of one host are wrong, and marked so; the hour of another too.
        sql(
            &mut db,
            "update process_rollup_5m set cpu_user_us = 77, sample_count = 1
                 where host_id = '00000000-0000-0000-0000-000000000001' and sampled_at in ('2026-03-01 05:05+00', '2026-03-01 05:10+00');
             update process_rollup_1h set cpu_user_us = 77, sample_count = 1
                 where host_id = '00000000-0000-0000-0000-000000000001' and sampled_at in ('2026-03-01 06:00+00', '2026-03-01 09:00+00');
             insert into rollup_dirty (host_id, sampled_at, width_s, is_late) values
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 05:05+00', 300, true),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 05:05+00', 300, true),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 05:10+00', 300, true),
                 ('00000000-0000-0000-0000-000000000001', '2026-03-01 09:00+00', 3600, true)",
        )
        .await;
        let odd = Duration::seconds(17);
        check(&api, at(11) + odd, at(3000) - odd, "1h").await;
        // 04:50 to 06:10 takes the 5 minutes.
        check(&api, at(580), at(740), "5m").await;
    }
}

#[tokio::test]
async fn where_samples_are_not_kept_the_window_is_widened_to_roll_ups() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = fleet(&api).await;
        sql(
            &mut db,
            "delete from process_samples where sampled_at <= '2026-03-01 12:00+00';
             delete from process_rollup_5m where sampled_at <= '2026-03-01 06:00+00';
             update series set raw_floor = '2026-03-01 12:00+00' where series like '%_samples';
             update series set raw_floor = '2026-03-01 06:00+00' where series like '%_rollup_5m'",
        )
        .await;
        let odd = Duration::seconds(17);
        // 00:05:47 becomes 00:00.
        check_as(&api, (at(11) + odd, at(3000) - odd), (at(0), at(3000) - odd), "1h").await;
        // 08:20:17 to 08:28:43, a window that samples would answer: 5 minutes.
        check_as(&api, (at(1000) + odd, at(1018) - odd), (at(1000), at(1020)), "5m").await;
        // 02:30:17 to 02:40: an hour.
        check_as(&api, (at(300) + odd, at(320)), (at(240), at(360)), "1h").await;

        // A series has the step that is kept, or says which one it could have.
        let window = window(at(240), at(TICKS));
        let series = api.get(&format!("/v1/hosts/host-1/samples?{window}")).await;
        assert_eq!(series["step_s"], 3600, "{engine:?}");
        let samples = series["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 25);
        assert_eq!(samples[0]["sampled_at"], "2026-03-01T03:00:00Z");
        assert_eq!(samples[0]["cpu_user_us"], (241..=360).sum::<i64>());
        assert_eq!(samples[0]["load_1m"], 300.5);
        let refused = api.refused(&format!("/v1/hosts/host-1/samples?{window}&step=5m")).await;
        assert_eq!(refused, (400, "bad_parameter".into()));
    }
}

#[tokio::test]
async fn a_gap_is_a_gap_at_every_resolution() {
    for engine in Engine::ALL {
        let api = Api::start(engine).await;
        let mut db = fleet(&api).await;
        for table in [
            "host_samples",
            "host_rollup_5m",
            "host_rollup_1h",
            "process_rollup_5m",
            "process_rollup_1h",
        ] {
            sql(
                &mut db,
                &format!(
                    "delete from {table} where host_id = '00000000-0000-0000-0000-000000000001'
                and sampled_at > '2026-03-01 08:00+00' and sampled_at <= '2026-03-01 10:00+00'"
                ),
            )
            .await;
        }
        sql(
            &mut db,
            "delete from process_samples where sampled_at > '2026-03-01 08:00+00' and sampled_at <= '2026-03-01 10:00+00'
                 and host_number = (select host_number from hosts where host_id = '00000000-0000-0000-0000-000000000001')",
        )
        .await;
        let day = window(at(0), at(2880));
        for (step, width) in [("5m", 10), ("1h", 120)] {
            let answer = api.get(&format!("/v1/hosts/host-1/samples?{day}&step={step}")).await;
            let samples = answer["samples"].as_array().unwrap();
            assert_eq!(samples.len(), 2880 / width);
            for (index, point) in samples.iter().enumerate() {
                let (first, last) = (index * width + 1, (index + 1) * width);
                let expect = if last > 960 && last <= 1200 {
                    json!([0, null])
                } else {
                    json!([width, (first..=last).sum::<usize>()])
                };
                assert_eq!(
                    json!([point["sample_count"], point["cpu_user_us"]]),
                    expect,
                    "{step} {index}"
                );
            }
            let coverage = &answer["coverage"];
            assert_eq!(
                (&coverage["complete"], &coverage["missing_ms"]),
                (&json!(false), &json!(7_200_000))
            );
            assert_eq!(coverage["incomplete_hosts"][0]["host_name"], "host-1");
            let process = process_id("command 2");
            let path = format!("/v1/hosts/host-1/processes/{process}/samples?{day}&step={step}");
            let process = api.get(&path).await;
            let gaps = process["samples"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|point| point["sample_count"] == 0);
            assert_eq!(gaps.count(), 240 / width, "{step}");
        }
        raw_series_with_a_gap(&api).await;
        let whole = api.get(&format!("/v1/hosts/host-2/samples?{day}&step=1h")).await;
        assert_eq!(whole["coverage"]["complete"], true, "{}", whole["coverage"]);
    }
}

async fn raw_series_with_a_gap(api: &Api) {
    // Between samples, one point that is as long as the gap.
    let around = window(at(958), at(1202));
    let raw = api.get(&format!("/v1/hosts/host-1/instances/2/samples?{around}")).await;
    let samples: Vec<Value> = raw["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| json!([point["sample_count"], point["interval_ms"], point["cpu_user_us"]]))
        .collect();
    assert_eq!(
        samples,
        [
            json!([1, 30_000, cpu(1, 2, 959)]),
            json!([1, 30_000, cpu(1, 2, 960)]),
            json!([0, 7_200_000, null]),
            json!([1, 30_000, cpu(1, 2, 1201)]),
            json!([1, 30_000, cpu(1, 2, 1202)]),
        ]
    );
    assert_eq!(raw["process"]["command_line"], "command 2");
}

fn process_id(command_line: &str) -> String {
    shared_model::ProcessId::of(command_line).0.simple().to_string()
}
