-- When nobody is told, and how often somebody is told again.

create table silences (
    silence_id   uuid primary key,
    selector     text not null default '',          -- labels, as written; empty: every host, and the fleet
    requirements jsonb not null default '[]',       -- the selector as procfleet_selects reads it
    host_id      uuid references hosts on delete cascade, -- null: any
    rule         text,                              -- null: any
    comment      text not null,
    created_by   text not null,
    starts_at    timestamptz not null,
    ends_at      timestamptz not null check (ends_at > starts_at),
    created_at   timestamptz not null default now()
);
create index silences_ends_at on silences (ends_at);

-- The silence that an alert is under now: of several the one that ends last.
create function procfleet_silence_of(rule text, host_id uuid, labels jsonb)
returns table (silence_id uuid, ends_at timestamptz) language sql stable as $$
    select s.silence_id, s.ends_at from silences s
    where s.starts_at <= now() and s.ends_at > now()
      and (s.rule is null or s.rule = $1) and (s.host_id is null or s.host_id = $2)
      and case when $2 is null then s.requirements = '[]' else procfleet_selects($3, s.requirements) end
    order by s.ends_at desc limit 1
$$;

alter table alerts
    add column acknowledged_until timestamptz,
    add column renotify_at timestamptz,             -- null: nobody is told again
    add column renotified integer not null default 0;

-- `renotified`: still firing. `muted`: all of the alert lay within a silence.
alter table notifications
    add column silence_id uuid references silences on delete set null, -- it waited, or waits, for its end
    add column round integer not null default 0,
    drop constraint notifications_kind_check,
    add constraint notifications_kind_check check (kind in ('fired', 'flapping', 'renotified', 'resolved')),
    drop constraint notifications_state_check,
    add constraint notifications_state_check check (state in ('queued', 'sending', 'sent', 'merged', 'muted', 'dead')),
    drop constraint notifications_alert_id_channel_id_kind_key,
    add constraint notifications_once unique (alert_id, channel_id, kind, round);
create index notifications_silence_id on notifications (silence_id) where silence_id is not null;
create index alerts_resolved_at on alerts (resolved_at) where resolved_at is not null;
create index alerts_renotify_at on alerts (renotify_at) where resolved_at is null and renotify_at is not null;
create index notifications_channel_id on notifications (channel_id);

-- For dashboards: what was wrong, from when to when. Null: not over.
create view procfleet_alerts as
    select a.alert_id, a.host_id, h.host_name, a.rule, a.severity, a.state, a.began_at, a.fired_at, a.resolved_at,
           a.detail->>'object' as object
    from alerts a left join hosts h using (host_id);
