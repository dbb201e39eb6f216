//! The routes over a database of their own, and rows of known values.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use collector_api::alerts::sender::Sender;
use collector_api::api::{self, ApiState};
use collector_api::auth::operator::{MintedApiKey, OperatorAuth, Role};
use collector_api::config::Alerts;
use collector_api::store::Store;
use collector_api::store::audit::Actor;
use collector_api::store::copy::compact;
use fleet_sim::database::{Engine, TestDatabase};
use serde_json::Value;
use shared_model::ProcessId;
use sqlx::{AssertSqlSafe, PgConnection};
use time::OffsetDateTime;
use time::macros::datetime;
use tower::ServiceExt as _;
use uuid::Uuid;

/// When the incident was.
pub(super) const AT: OffsetDateTime = datetime!(2026-03-01 03:12:00 UTC);

/// The routes, without a socket.
pub(super) struct Api {
    router: Router,
    pub(super) database: TestDatabase,
    pub(super) store: Store,
    keys: [String; 3],
}

impl Api {
    pub(super) async fn start(engine: Engine) -> Self {
        let database = TestDatabase::create(engine).await.unwrap();
        let store = Store::connect(&database.url, 4).await.unwrap();
        let mut connection = database.connect().await.unwrap();
        if engine == Engine::PostgreSql {
            let all: Vec<String> = sqlx::query_scalar("select series from series")
                .fetch_all(&mut connection)
                .await
                .unwrap();
            for series in all {
                let partition = format!(
                    "create table {series}_all partition of {series} for values from ('2020-01-01') to ('2200-01-01')"
                );
                sql(&mut connection, &partition).await;
            }
        }
        sql(
            &mut connection,
            "insert into enrollment_tokens (token_id, name, secret_sha256, expires_at)
             values ('00000000-0000-0000-0000-000000000001', 'test', sha256('x'), now() + interval '1 day')",
        )
        .await;
        let mut keys = [const { String::new() }; 3];
        for (key, role) in keys.iter_mut().zip([Role::Viewer, Role::Operator, Role::Admin]) {
            let random = [role as u8 + 1; 48];
            let minted = MintedApiKey::from_random(random, format!("{role}-key"), role, None);
            store.create_api_key(&minted.new, &Actor::cli()).await.unwrap();
            *key = minted.to_paste();
        }
        let state = ApiState {
            readers: Store::connect_reader(&database.url, 2).unwrap(),
            writers: store.clone(),
            operators: OperatorAuth::new(store.clone()),
            ca_key_file: "/nonexistent/ca.key".into(),
            sender: Sender::new("/nonexistent/ca.key".into(), &Alerts::default()).unwrap(),
            agent_endpoints: ["https://127.0.0.1:7443".to_owned()].into(),
            install: None,
            secure_cookies: false,
        };
        Self { router: api::routes(state).into(), database, store, keys }
    }

    pub(super) fn key(&self, role: Role) -> &str {
        &self.keys[role as usize]
    }

    pub(super) async fn connect(&self) -> PgConnection {
        self.database.connect().await.unwrap()
    }

    /// Answers as they are: status, body (null where there is none).
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let authorization = authorization.map(|value| (header::AUTHORIZATION.as_str(), value));
        let (status, _, body) = self.send_with(method, path, authorization.as_slice(), body).await;
        (status, body)
    }

    /// The same with any headers, and those of the answer.
    pub(super) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 16 << 20).await.unwrap();
        if head.status.is_client_error() || head.status.is_server_error() {
            let media_type = head.headers.get(header::CONTENT_TYPE);
            assert_eq!(media_type.unwrap(), "application/problem+json", "{method} {path}");
        }
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(super) async fn send_as(
        &self,
        role: Role,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let authorization = format!("Bearer {}", self.key(role));
        self.send(method, path, Some(&authorization), body).await
    }

    /// A viewer's question that must be answered.
    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send_as(Role::Viewer, "GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// A viewer's question that must be refused: status and code.
    pub(super) async fn refused(&self, path: &str) -> (u16, String) {
        let (status, body) = self.send_as(Role::Viewer, "GET", path, None).await;
        (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    }
}

pub(super) async fn sql(connection: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(connection).await.unwrap();
}

/// A host that reported at [`AT`], if it reported at all.
pub(super) async fn host(connection: &mut PgConnection, number: u128, name: &str) -> Uuid {
    let host_id = Uuid::from_u128(number);
    sqlx::query(
        "insert into hosts (host_id, host_name, kernel_release, host_arch, agent_version, enrollment_token_id)
         values ($1, $2, '6.1.0', 'x86_64', '0.1.0', '00000000-0000-0000-0000-000000000001')",
    )
    .bind(host_id)
    .bind(name)
    .execute(&mut *connection)
    .await
    .unwrap();
    host_id
}

/// Describes an instance, and the process it runs.
pub(super) async fn instance(
    connection: &mut PgConnection,
    host_id: Uuid,
    instance_id: i64,
    command_line: &str,
) -> Uuid {
    let ProcessId(process_id) = ProcessId::of(command_line);
    sqlx::query("insert into processes values ($1, $2) on conflict do nothing")
        .bind(process_id)
        .bind(command_line)
        .execute(&mut *connection)
        .await
        .unwrap();
    sqlx::query(
        "insert into process_instances (host_id, instance_id, process_id, boot_id, creation_time,
             described_at, start_ticks, pid, parent_pid, user_id, owner, executable_name, systemd_unit, container_id, cgroup)
         values ($1, $2, $3, $1, $4, $4, 1, $5, 1, 1000, 'alice', 'name', 'db.service', null, '/db.slice')",
    )
    .bind(host_id)
    .bind(instance_id)
    .bind(process_id)
    .bind(AT - time::Duration::HOUR)
    .bind(i32::try_from(instance_id % 30_000).unwrap())
    .execute(&mut *connection)
    .await
    .unwrap();
    process_id
}

/// One row of `process_samples`; what is `None` is unknown.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    pub(super) instance_id: i64,
    pub(super) cpu_user_us: Option<i64>,
    pub(super) cpu_system_us: Option<i64>,
    pub(super) memory: Option<i64>,
    pub(super) disk: (Option<i64>, Option<i64>),
    pub(super) network: (Option<i64>, Option<i64>),
}

pub(super) async fn sample(
    connection: &mut PgConnection,
    host_id: Uuid,
    sampled_at: OffsetDateTime,
    row: Row,
) {
    sqlx::query(
        "insert into process_samples (host_number, sampled_at, instance_id, interval_ms, process_count,
             cpu_user_us, cpu_system_us, memory_usage_bytes, disk_read_bytes, disk_write_bytes,
             network_receive_bytes, network_transmit_bytes)
         values ((select host_number from hosts where host_id = $1), $2, $3, 30000, case $3 when 0 then 40 else 1 end, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(host_id)
    .bind(sampled_at)
    .bind(row.instance_id)
    .bind(stored(row.cpu_user_us))
    .bind(stored(row.cpu_system_us))
    .bind(stored(row.memory))
    .bind(stored(row.disk.0))
    .bind(stored(row.disk.1))
    .bind(stored(row.network.0))
    .bind(stored(row.network.1))
    .execute(&mut *connection)
    .await
    .unwrap();
}

fn stored(counter: Option<i64>) -> Option<i32> {
    counter.map(|value| compact(value.cast_unsigned()))
}

/// `name=value` of a query, whatever the value holds.
pub(super) fn query(name: &str, value: &str) -> String {
    let escaped =
        value.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02X}"));
    format!("{name}={escaped}")
}
