-- Alerts, where they are told, and what is still to be told.

-- Where messages go. `sealed`: address and secret, sealed with the key of the authorities.
create table channels (
    channel_id uuid primary key,
    name       text not null unique,
    kind       text not null check (kind in ('wecom', 'dingtalk', 'feishu', 'slack', 'webhook', 'email', 'alertmanager')),
    language   text not null check (language in ('en', 'zh')),
    sealed     bytea not null,
    enabled    boolean not null default true,
    per_minute integer not null check (per_minute between 1 and 600),
    budget     double precision not null,           -- messages that may be sent at budget_at, by all replicas
    budget_at  timestamptz not null default now(),
    held_until timestamptz,                         -- the provider asked for this pause
    synced_at  timestamptz,                         -- of kind alertmanager: when all alerts were sent last
    failing_since timestamptz,                      -- of kind alertmanager: since when not every peer took them
    created_at timestamptz not null default now()
);

-- One open alert per fingerprint: whichever replica is first opens it.
create table alerts (
    alert_id         uuid primary key,
    fingerprint      text not null,                 -- the rule and its object
    rule             text not null,
    severity         text not null check (severity in ('info', 'warning', 'critical')),
    host_id          uuid references hosts on delete cascade, -- null: of the fleet
    state            text not null default 'firing' check (state in ('firing', 'acknowledged', 'resolved')),
    detail           jsonb not null default '{}',
    muted            boolean not null default false, -- flaps: said once, then kept to itself
    began_at         timestamptz not null,          -- since when the condition holds
    fired_at         timestamptz not null default now(),
    recovering_since timestamptz,                   -- the condition is gone, perhaps for good
    acknowledged_by  text,
    resolved_at      timestamptz,
    check ((state = 'resolved') = (resolved_at is not null))
);
create unique index alerts_open on alerts (fingerprint) where resolved_at is null;
create index alerts_fired_at on alerts (fired_at desc);
create index alerts_fingerprint on alerts (fingerprint, fired_at);

-- The outbox: written in the transaction of the transition, sent at least once.
create table notifications (
    notification_id bigint primary key generated always as identity,
    channel_id      uuid not null references channels on delete cascade,
    alert_id        uuid not null references alerts on delete cascade,
    kind            text not null check (kind in ('fired', 'flapping', 'resolved')),
    state           text not null default 'queued' check (state in ('queued', 'sending', 'sent', 'merged', 'dead')),
    attempts        integer not null default 0,
    next_at         timestamptz not null default now(),
    lease           uuid,                           -- of the attempt under way
    lease_until     timestamptz,
    last_error      text,
    queued_at       timestamptz not null default now(),
    ended_at        timestamptz,
    unique (alert_id, channel_id, kind)
) with (fillfactor = 70);
create index notifications_open on notifications (channel_id, notification_id) where state in ('queued', 'sending');

-- When some replica last looked at the heartbeats, and whether no host at all was heard of.
create table alert_sweep (
    only_row   boolean primary key default true check (only_row),
    last_ok_at timestamptz,
    deaf_since timestamptz
);
insert into alert_sweep default values;
