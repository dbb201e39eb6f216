//! Puts the parts together: the start-up order, the URL map of both doors, the long-running tasks.
//!
//! Start-up order: refuse a configuration that cannot work, wait for the database, check the schema,
//! load the authorities, bind both doors, start the writers, then everything that asks them. What
//! fails before the doors are open ends the process with a sentence that says what to do.

pub mod keeper;
mod presence;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::alerts::sender::{Sender, SenderError};
use crate::alerts::{alertmanager, delivery, ping, rules, sweep};
use crate::api::{self, ApiState};
use crate::artifacts::{self, ArtifactsState};
use crate::auth::agent::{CHECK_TTL, CertificateChecks};
use crate::auth::operator::OperatorAuth;
use crate::authority::live::LiveAuthorities;
use crate::authority::{self, AuthorityError};
use crate::config::{Config, ConfigError, host_name};
use crate::configuration::agents::{self, ConfigurationState};
use crate::configuration::live::LiveConfigurations;
use crate::document;

use crate::doors::limits::ConnectionLimits;
use crate::doors::tls::{self, Clients, LiveTls, TlsError};
use crate::doors::{self, Door, DoorError, forwarded, layers, proxied};
use crate::enroll::{self, EnrollState};
use crate::error::Chain;
use crate::health;
use crate::ingest::desired_releases::DesiredReleases;
use crate::ingest::fleet_size::FleetSize;
use crate::ingest::witnesses::Witnesses;
use crate::ingest::{self, IngestState, ReportWriter};
use crate::lifecycle::Lifecycle;
use crate::maintenance;
use crate::rollouts;
use crate::store::migrate::SchemaError;
use crate::store::replicas::Myself;
use crate::store::{Store, StoreError};
use crate::web;
use keeper::{AuthorityKeeper, LoadError};

/// Connections for operators' questions.
const READER_CONNECTIONS: u32 = 4;
/// First pause after the database did not answer; doubles up to [`CONNECT_PAUSE_MAX`].
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, and so the rate of the message.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How often the recorder of the metrics tidies up.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// See there.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See there.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// See there.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// See there.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// See there.
    #[error(transparent)]
    Messages(#[from] SenderError),
    /// See there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// See there.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stopped while waiting for the database.
    #[error("stopped before the database answered")]
    Stopped,
}

/// Where a started server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Agent door.
    pub agent: SocketAddr,
    /// Operator door.
    pub operator: SocketAddr,
    /// Proxied door, if there is one.
    pub proxied: Option<SocketAddr>,
}

/// What is done to the database before serving.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepare {
    /// Bring the schema up to date.
    pub migrate: bool,
    /// Make the authorities unless they exist.
    pub init: bool,
}

impl Prepare {
    async fn run(
        self,
        store: &Store,
        key_file: &Path,
        now: OffsetDateTime,
    ) -> Result<(), StartError> {
        if self.migrate {
            store.migrate().await?;
        }
        store.check_schema().await?;
        if self.init {
            authority::init(store, key_file, now).await?;
        }
        Ok(())
    }
}

/// Starts everything on `lifecycle`. The caller then waits for [`Lifecycle::run`].
pub async fn start(
    config: &Config,
    lifecycle: &Lifecycle,
    prepare: Prepare,
    metrics: PrometheusHandle,
) -> Result<Addresses, StartError> {
    doors::check_operator_door(&config.operator_door)?;
    proxied::check(&config.proxied_door)?;
    let proxies = tls::proxies(config.proxied_door.proxy_ca_file.as_deref())?;
    let operator_tls = tls::operator_door(
        config.operator_door.tls_certificate_file.as_deref(),
        config.operator_door.tls_key_file.as_deref(),
    )?;
    let sender = Sender::new(config.ca_key_file.clone(), &config.alerts)?;
    let store = connect(config, lifecycle).await?;
    #[expect(clippy::disallowed_methods, reason = "start-up: the first certificates' beginning")]
    let now = OffsetDateTime::now_utc();
    prepare.run(&store, &config.ca_key_file, now).await?;
    let names = config.agent_door.names.clone();
    let mut keeper = AuthorityKeeper::load(&store, config.ca_key_file.clone()).await?;
    let agent_listener = doors::bind("agent", config.agent_door.listen).await?;
    let operator_listener = doors::bind("operator", config.operator_door.listen).await?;
    let mut addresses = Addresses {
        proxied: None,
        agent: agent_listener.local_addr().unwrap_or(config.agent_door.listen),
        operator: operator_listener.local_addr().unwrap_or(config.operator_door.listen),
    };

    let agents = agent_router(config, &store, &keeper.authorities(), lifecycle);
    let agent_door = Door {
        name: "agent",
        listener: agent_listener,
        limits: ConnectionLimits::new(
            "agent",
            config.agent_door.max_connections,
            config.agent_door.max_anonymous_connections,
        ),
        max_age: Duration::from_secs(config.agent_door.max_connection_age_s.into()),
        tls: Some(keeper.tls(names.clone(), Clients::Hosts, now)?),
        only_from: None,
        proxy_protocol_from: config.agent_door.proxy_protocol_from.clone(),
        router: layers::wrap("agent", agents.clone().layer(from_fn(forwarded::ignore))),
    };
    let known = (lifecycle, keeper.authorities());
    let router = operator_door_router(config, &store, &sender, known, metrics.clone())?;
    let most = config.operator_door.max_connections;
    let operator_door = operator_door(operator_listener, most, operator_tls, router);
    let proxied = match config.proxied_door.listen {
        None => None,
        Some(listen) => {
            let tls = keeper.tls(names, proxies, now)?;
            let door = proxied_door(config, listen, tls, agents, keeper.authorities()).await?;
            let address = door.listener.local_addr().unwrap_or(listen);
            lifecycle.spawn("proxied_door", door.run(lifecycle.clone()));
            Some(address)
        }
    };
    addresses.proxied = proxied;
    lifecycle.spawn("authorities", keeper.run(lifecycle.stop.clone()));
    lifecycle.spawn("metrics", upkeep(metrics, lifecycle.clone()));
    spawn_work(config, &store, (sender, myself(&addresses)), lifecycle);
    lifecycle.spawn("agent_door", agent_door.run(lifecycle.clone()));
    lifecycle.spawn("operator_door", operator_door.run(lifecycle.clone()));
    tracing::info!(agent = %addresses.agent, operator = %addresses.operator, "listening");
    Ok(addresses)
}

/// The door of the operators.
fn operator_door(
    listener: tokio::net::TcpListener,
    most: usize,
    tls: Option<LiveTls>,
    router: Router,
) -> Door {
    Door {
        name: "operator",
        listener,
        limits: ConnectionLimits::new("operator", most, most),
        max_age: doors::MAX_OPERATOR_CONNECTION_AGE,
        tls,
        only_from: None,
        proxy_protocol_from: Vec::new(),
        router,
    }
}

/// What this server says of itself.
fn myself(addresses: &Addresses) -> Myself {
    Myself {
        replica_id: Uuid::new_v4(),
        host_name: host_name(),
        version: env!("CARGO_PKG_VERSION"),
        operator_door: addresses.operator.to_string(),
    }
}

/// What every replica does unasked.
fn spawn_work(
    config: &Config,
    store: &Store,
    (sender, me): (Sender, Myself),
    lifecycle: &Lifecycle,
) {
    let stop = || lifecycle.stop.clone();
    lifecycle.spawn("presence", presence::run(store.clone(), me, stop()));
    if let Some(url) = config.alerts.ping_url.clone() {
        lifecycle.spawn("alerts_ping", ping::run(store.clone(), sender.clone(), url, stop()));
    }
    lifecycle.spawn("alerts_sweep", sweep::run(store.clone(), stop()));
    lifecycle.spawn("alerts_rules", rules::run(store.clone(), stop()));
    lifecycle.spawn("alerts_delivery", delivery::run(store.clone(), sender.clone(), stop()));
    let peers = alertmanager::run(store.clone(), sender, stop());
    lifecycle.spawn("alerts_alertmanager", peers);
    lifecycle.spawn("rollouts", rollouts::run(store.clone(), stop()));
    lifecycle.spawn("maintenance", maintenance::run(store.clone(), stop()));
}

/// The door of proxies that end TLS: the agents' routes, under what the proxies forward.
async fn proxied_door(
    config: &Config,
    listen: SocketAddr,
    tls: LiveTls,
    agents: Router,
    authorities: LiveAuthorities,
) -> Result<Door, StartError> {
    let door = &config.proxied_door;
    let forwarding = proxied::forwarding(door, authorities)?;
    let identified = agents.layer(from_fn_with_state(forwarding, forwarded::identify));
    Ok(Door {
        name: "proxied",
        listener: doors::bind("proxied", listen).await?,
        limits: ConnectionLimits::new("proxied", door.max_connections, door.max_connections),
        max_age: Duration::from_secs(config.agent_door.max_connection_age_s.into()),
        tls: Some(tls),
        only_from: Some(door.trusted_proxies.clone()),
        proxy_protocol_from: Vec::new(),
        router: layers::wrap("proxied", identified),
    })
}

/// The agents' URL map.
fn agent_router(
    config: &Config,
    store: &Store,
    authorities: &LiveAuthorities,
    lifecycle: &Lifecycle,
) -> Router {
    let (writer, tasks) = ReportWriter::new(store, &config.ingest, &lifecycle.drained);
    for task in tasks {
        lifecycle.spawn_writer("report_writer", task);
    }
    let checks = Arc::new(CertificateChecks::new(store.clone(), CHECK_TTL));
    let contacts = checks.contacts();
    let witnesses = Witnesses::new(&config.endpoints());
    let fleet_size = FleetSize::default();
    let desired_releases = DesiredReleases::default();
    let heard = (checks.contacts(), Arc::clone(&witnesses));
    let told = (fleet_size.clone(), desired_releases.clone());
    let ingest_state = IngestState::new(store.clone(), writer, &config.ingest, heard, told);
    let (contact_store, stop) = (store.clone(), lifecycle.stop.clone());
    lifecycle.spawn("contacts", async move { contacts.run(&contact_store, &stop).await });
    let (size_store, stop) = (store.clone(), lifecycle.stop.clone());
    lifecycle.spawn("fleet_size", async move { fleet_size.run(&size_store, &stop).await });
    let (release_store, stop) = (store.clone(), lifecycle.stop.clone());
    lifecycle.spawn("desired_releases", async move {
        desired_releases.run(&release_store, &stop).await;
    });
    let (witness_store, stop) = (store.clone(), lifecycle.stop.clone());
    lifecycle.spawn("witnesses", async move { witnesses.run(&witness_store, &stop).await });
    let enroll_state = EnrollState::new(store.clone(), authorities.clone(), config);
    let live = LiveConfigurations::new(store.clone());
    lifecycle.spawn("configurations", live.clone().run(lifecycle.stop.clone()));
    let configuration_state = ConfigurationState { store: store.clone(), live: live.clone() };
    let router = OpenApiRouter::default()
        .merge(ingest::routes(ingest_state))
        .merge(agents::routes(configuration_state))
        .merge(enroll::routes(enroll_state))
        .merge(artifacts::routes(ArtifactsState::new(config, authorities.clone())))
        .merge(health::routes(lifecycle.draining.clone()))
        .layer(Extension(checks))
        .layer(from_fn_with_state(live, agents::announce))
        .layer(from_fn_with_state(authorities.clone(), enroll::trust::announce));
    router.into()
}

/// The operator door's URL map.
fn operator_door_router(
    config: &Config,
    store: &Store,
    sender: &Sender,
    (lifecycle, authorities): (&Lifecycle, LiveAuthorities),
    metrics: PrometheusHandle,
) -> Result<Router, StartError> {
    let url = config.database_url()?.expose();
    let state = ApiState {
        readers: Store::connect_reader(url, READER_CONNECTIONS)?,
        writers: store.clone(),
        operators: OperatorAuth::new(store.clone()),
        ca_key_file: config.ca_key_file.clone(),
        sender: sender.clone(),
        agent_endpoints: config.endpoints().into(),
        install: config.install_url().map(|url| Arc::new((url, authorities))),
        secure_cookies: config.operator_door.tls_certificate_file.is_some(),
    };
    let router = OpenApiRouter::default()
        .merge(api::routes(state))
        .merge(health::routes(lifecycle.draining.clone()))
        .merge(health::metrics_route(metrics))
        .merge(document::routes())
        .merge(web::routes());
    Ok(layers::wrap("operator", router.into()))
}

/// Waits for the database, saying so at a bounded rate.
async fn connect(config: &Config, lifecycle: &Lifecycle) -> Result<Store, StartError> {
    let url = config.database_url()?;
    let mut pause = CONNECT_PAUSE;
    loop {
        match Store::probe(url.expose()).await {
            Ok(()) => {
                let connections = config.database.max_connections;
                return Ok(Store::connect(url.expose(), connections).await?);
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(database = %url, retry_in_s = pause.as_secs_f64(), error = %Chain(&error), "waiting for the database");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(CONNECT_PAUSE_MAX),
            () = lifecycle.draining.cancelled() => return Err(StartError::Stopped),
        }
    }
}

async fn upkeep(metrics: PrometheusHandle, lifecycle: Lifecycle) {
    let stop = lifecycle.stop;
    while stop.run_until_cancelled(tokio::time::sleep(METRICS_UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
}
